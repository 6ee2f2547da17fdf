"""The board in a real browser: signing in, finding, claiming; and what its pages must never do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import sync_playwright
from service_world import PACKAGE, op_name

from dagster_l2.ledger import State
from dagster_l2.service.board import op_address

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip("there is no Chromium")
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def cookies(world, name: str, role: str = "scientist") -> dict[str, str]:
    return {"l2_token": world.token(name, role)}


def test_a_scientist_signs_in_filters_claims_notes_and_releases(world, new_op, browser):
    op = new_op()
    page = browser.new_page()
    said: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.add("/".join(request.url.split("/")[:3])))
    page.goto(f"{world.url}{op_address(op)}")
    assert page.url.endswith("/board/sign-in"), "Without signing in there is nothing."
    page.keyboard.type("l2_wrong")  # the field has the focus
    page.keyboard.press("Enter")
    assert "does not hold" in page.get_by_role("alert").inner_text()
    page.get_by_label("Personal token").fill(world.token("bob", "scientist"))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("State").select_option("Preprocessed")
    page.get_by_role("button", name="Show").click()
    states = set(page.locator("tbody .state").all_inner_texts())
    assert states == {"Preprocessed"}
    page.get_by_role("button", name=f"Claim {op}").click()
    assert page.get_by_role("heading", level=1).inner_text() == op
    present = world.ledger.present(op)
    assert (present.state, present.claimed_by) == (State.WORKING, "bob")
    assert str(present.inversion_id) in page.locator("main").inner_text()
    page.get_by_label("Remark").fill("<b>limb</b> & spot")
    page.get_by_role("button", name="Note").click()
    assert "<b>limb</b> & spot" in page.locator("main").inner_text()
    page.get_by_role("button", name="Release").click()
    assert world.ledger.present(op).state is State.PREPROCESSED
    assert len(page.locator(".timeline li").all()) == len(world.ledger.history(op))
    page.get_by_role("button", name="Sign out").click()
    page.goto(f"{world.url}/board")
    assert page.url.endswith("/board/sign-in")
    wrong_token = [text for text in said if "401" in text]
    assert [text for text in said if text not in wrong_token] == []
    assert asked == {world.url}, "Nothing is loaded from elsewhere."
    page.close()


def test_the_page_of_an_op_tells_criteria_fields_datasets_and_inversions_with_units(world, browser):
    op = op_name(3)
    page = browser.new_page()
    page.context.add_cookies([{"name": "l2_token", "value": world.token("rita", "reader"), "url": world.url}])
    page.goto(f"{world.url}{op_address(op)}")
    text = page.locator("main").inner_text()
    for wanted in ("0.9\t0.75\tfraction", "630.00–631.00", "Fried parameter, m", "950 arcsec", "cm"):
        assert wanted in text, wanted
    assert page.get_by_role("img", name="solar disk").count() == 1
    box = page.locator("rect.field").bounding_box()
    sun = page.locator("circle.sun").bounding_box()
    assert box["x"] < sun["x"] + sun["width"] / 2, "East is left."
    assert box["y"] < sun["y"] + sun["height"] / 2, "North is up."
    assert (
        page.get_by_role("link", name="Movie of AAAAA").get_attribute("href") == "https://example.org/3.mp4"
    )
    assert page.get_by_role("button", name="Claim").count() == 0, "A reader only looks."
    page.close()


def test_forms_from_elsewhere_and_by_readers_write_nothing(world, new_op):
    op = new_op()
    with httpx.Client(base_url=world.url, cookies=cookies(world, "bob")) as bob:
        claim = {"order": "claim"}
        for headers in ({}, {"Origin": "https://example.org"}, {"Origin": "null"}):
            assert bob.post(op_address(op), data=claim, headers=headers).status_code == 403
        own = {"Origin": world.url}
        assert bob.post(op_address(op), data={"order": "publish"}, headers=own).status_code == 422
        assert bob.post(op_address("nobody"), data=claim, headers=own).status_code == 404
        assert world.ledger.present(op).state is State.PREPROCESSED
        assert bob.post(op_address(op), data=claim, headers=own).status_code == 303
        again = bob.post(op_address(op), data=claim, headers=own)
        assert (again.status_code, "bob has claimed it" in again.text) == (409, True)
        policy = again.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
    with httpx.Client(base_url=world.url, cookies=cookies(world, "rita", "reader")) as rita:
        assert rita.post(op_address(op), data={"order": "release"}, headers=own).status_code == 403
        assert rita.post(op_address(op), data={"order": "note", "text": "x"}, headers=own).status_code == 403
    assert world.ledger.present(op).details["dataset_ids"] == PACKAGE["dataset_ids"]
    assert world.ledger.annotations(op) == []


def test_the_other_lists_tell_what_queue_ledger_and_gold_do(world):
    with httpx.Client(base_url=world.url, cookies=cookies(world, "rita", "reader")) as rita:
        overdue, proposals = rita.get("/board/overdue"), rita.get("/board/proposals")
        assert overdue.status_code == proposals.status_code == 200
        totals = [
            int(number)
            for number in re.findall(r'scope="row">[^<]*</th><td class="number">(\d+)', proposals.text)
        ]
        assert sum(totals) == len(world.ledger.present_all())
        inversions = re.findall(r'scope="row">(inv[^<]*)<', rita.get("/board/inversions").text)
        assert inversions == [f"inv.{number:06d}" for number in reversed(range(20))], "The newest first."
        for path in ("/board?state=Lost&for=nobody", "/board?offset=5000"):
            assert "Nothing waits." in rita.get(path).text
        assert rita.get("/board/picture/" + op_name(0)).status_code == 404
