"""The board in a real browser: signing in, finding, claiming; and what its pages must never do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright
from service_world import PACKAGE, op_name

from dagster_l2.answers.scanned import STANDINGS
from dagster_l2.base.errors import L2Error
from dagster_l2.inputs import (
    MISSING_FILE,
    PICTURE_FILE,
    WRONG_FILE,
    build_package,
    package_folder,
    write_package,
)
from dagster_l2.ledger import State
from dagster_l2.pipeline.unstaged import note_failure
from dagster_l2.products import QUICKLOOK_FILE
from dagster_l2.service.calendars import NOT_ASKED, SHAPES
from dagster_l2.service.pages import op_address

CHROMIUM = Path("/usr/bin/chromium")
PNG = b"\x89PNG\r\n\x1a\n"


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
    for wanted in ("0.9\t0.75\tfraction", "630.00–631.00", "Fried parameter, m", "950 arcsec", "0.080 m"):
        assert wanted in text, wanted
    assert "AAAAA\t0.020\t0.040\t0.080\t0.160\t28.200" in text, "The box plot's values, as a table."
    plot = page.get_by_role("img", name="Box plot of the Fried parameters of 1 datasets")
    ends = [plot.locator(mark).bounding_box() for mark in (".whisker", ".box", ".median")]
    starts = [end["x"] for end in ends]
    assert starts == sorted(starts), "The whisker begins before the box, the box before the median."
    assert ends[0]["x"] + ends[0]["width"] > ends[1]["x"] + ends[1]["width"]
    assert "→ 28.2 m" in plot.text_content(), "What lies off the axis is said."
    assert page.get_by_role("img", name="solar disk").count() == 1
    box = page.locator(".disk rect.field").bounding_box()
    sun = page.locator("circle.sun").bounding_box()
    assert box["x"] < sun["x"] + sun["width"] / 2, "East is left."
    assert box["y"] < sun["y"] + sun["height"] / 2, "North is up."
    assert (
        page.get_by_role("link", name="Movie of AAAAA").get_attribute("href") == "https://example.org/3.mp4"
    )
    assert page.get_by_role("button", name="Claim").count() == 0, "A reader only looks."
    page.close()


SAID = {"text": "seen", "level": "3"}


@pytest.mark.parametrize(
    ("role", "state", "order", "becomes"),
    [
        ("scientist", State.PREPROCESSED, "claim", State.WORKING),
        ("scientist", State.WORKING, "release", State.PREPROCESSED),
        ("scientist", State.INVERTED, "withdraw", State.WORKING),
        ("scientist", State.ERROR, "retry", State.PREPROCESSED),
        ("operator", State.INVERTED, "publish", State.INVERTED),
        ("operator", State.PUBLISHED, "reopen", State.INVERTIBLE),
        ("scientist", State.DISCOVERED, "assign", State.DISCOVERED),
        ("scientist", State.DISCOVERED, "priority", State.DISCOVERED),
        ("scientist", State.PUBLISHED, "note", State.PUBLISHED),
    ],
)
def test_what_makes_sense_is_offered_to_who_may_and_done(world, new_op, role, state, order, becomes):
    op = new_op(State.PREPROCESSED if state is State.ERROR else state)
    if state is State.ERROR:
        failed = {"step": "stage", "error_class": "permanent", "message": "The disk is full."}
        world.ledger.fail(op, **failed, actor="t", run_id=None)
    address, own = op_address(op), {"Origin": world.url}
    who = "bob" if role == "scientist" else "olga"
    with httpx.Client(base_url=world.url, cookies=cookies(world, "rita", "reader")) as rita:
        page = rita.get(address).text
        assert ("The disk is full." in page) is (state is State.ERROR)
        assert 'name="order"' not in page, "A reader is offered nothing."
        assert rita.post(address, data={"order": order, **SAID}, headers=own).status_code == 403
    with httpx.Client(base_url=world.url, cookies=cookies(world, who, role)) as client:
        offered = set(re.findall(r'name="order" value="(\w+)"', client.get(address).text))
        assert order in offered
        before = len(world.ledger.history(op)) + len(world.ledger.annotations(op))
        for other in {"claim", "release", "withdraw", "retry", "publish", "reopen"} - offered:
            answer = client.post(address, data={"order": other, **SAID}, headers=own)
            problem = re.findall(r'class="problem" role="alert">([^<]+)<', answer.text)
            assert answer.status_code in (403, 409, 422)
            assert len(problem) == 1, "Why not is said on the page, in one sentence."
        assert len(world.ledger.history(op)) + len(world.ledger.annotations(op)) == before
        assert client.post(address, data={"order": order, **SAID}, headers=own).status_code == 303
    assert world.ledger.present(op).state is becomes
    assert len(world.ledger.history(op)) + len(world.ledger.annotations(op)) == before + 1


def test_a_colleague_is_not_offered_what_only_the_claimer_may(world, new_op):
    for state, order in ((State.WORKING, "release"), (State.INVERTED, "withdraw")):
        op = new_op(state, "bob")
        with httpx.Client(base_url=world.url, cookies=cookies(world, "cleo")) as cleo:
            assert f'value="{order}"' not in cleo.get(op_address(op)).text
            answer = cleo.post(op_address(op), data={"order": order, **SAID}, headers={"Origin": world.url})
            assert (answer.status_code, "only bob or an operator" in answer.text) == (409, True)


def test_package_failed_frames_and_pictures_are_on_the_page(world, new_op):
    op = new_op(State.WORKING)
    row = {
        "op_id": op, "dataset_id": "BKPLX", "proposal_id": "pid_1", "bucket": "data", "arm": "arm 1",
        "instrument_program_id": "id.1", "frame_count": 7, "spectral_lines": ["Na I D1 (589.59 nm)"],
    }  # fmt: skip
    made = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    folder = package_folder(world.settings.data, op)
    write_package(folder, build_package(op, [row], inputs_hash="h", rule_version="r", created_at=made))
    (folder / MISSING_FILE).write_text(json.dumps(["pid_1/BKPLX/<1>.fits"]))
    (folder / WRONG_FILE).write_text(json.dumps([{"message": "frame 2 is of another arm"}]))
    present = world.ledger.present(op)
    note_failure(world.ledger, present, L2Error("1 of 7 frames did not arrive."), actor="t")
    home = world.settings.data / "products" / str(present.inversion_id)
    home.mkdir(parents=True)
    (home / QUICKLOOK_FILE).write_bytes(PNG)
    (folder / PICTURE_FILE).write_bytes(PNG)
    with httpx.Client(base_url=world.url, cookies=cookies(world, "rita", "reader")) as rita:
        page = rita.get(op_address(op)).text
        for wanted in (
            "1 datasets of instrument program id.1, 7 frames",
            "It lies at <code>inputs/",
            "2026-01-02 03:04",
            "Na I D1 (589.59 nm)",
            "Staging failed: 1 of 7 frames did not arrive.",
            "pid_1/BKPLX/&lt;1&gt;.fits",
            "frame 2 is of another arm",
        ):
            assert wanted in page, wanted
        pictures = re.findall(r'<img class="quicklook" src="([^"]+)" alt="[^"]{20,}"', page)
        assert [rita.get(picture).content for picture in pictures] == [PNG, PNG]
        assert rita.get(pictures[1] + "x").status_code == 404
    assert httpx.get(world.url + pictures[1]).status_code == 303, "Without a token there is no picture."


def test_the_scans_are_told_as_a_calendar_with_a_table_as_its_text(world, browser):
    page = browser.new_page()
    page.context.add_cookies([{"name": "l2_token", "value": world.token("rita", "reader"), "url": world.url}])
    page.goto(f"{world.url}/board")
    page.get_by_role("link", name="Scans").click()
    years = page.get_by_label("Year").locator("option").all_inner_texts()
    assert sorted(years) == ["2024", "2025", "2026"], "No day after the last look is complete."
    page.get_by_label("Year").select_option("2024")
    page.get_by_role("button", name="Show").click()
    calendar = page.get_by_role("img", name="metadata_store in 2024")
    told = "351 days complete, 5 days in part, 5 days no data, 5 days failed"
    assert calendar.get_attribute("aria-label").endswith(told)
    assert calendar.locator("path.failed").get_attribute("d").count("M") == 5
    page.get_by_text("The same by month").click()
    table = page.get_by_role("table", name="Days of 2024")
    rows = [row.split() for row in table.locator("tbody tr").all_inner_texts()]
    assert rows[1] == ["February", "24", "0", "0", "5"]
    assert sum(int(row[1]) for row in rows) == 351
    text = page.locator("main").inner_text()
    for wanted in ("bounding_box\t40\t40", "scan-1\tSUCCESS\t12.5\t40\t200\t40\t20\t30"):
        assert wanted in text, wanted
    page.get_by_role("link", name="all of them").click()
    assert page.locator("tbody tr").count() == 30
    page.get_by_role("link", name="Back").click()
    page.get_by_role("link", name="all windows").click()
    first = page.locator("tbody tr").first.inner_text()
    assert "FAILED" in first, "What needs somebody comes first."
    assert "The store did not answer in time." in first
    page.get_by_role("link", name="After").click()
    assert page.locator("tbody tr").count() == 46
    page.close()


def test_each_word_for_a_day_has_a_mark():
    assert {*STANDINGS, NOT_ASKED} == set(SHAPES)


PATHS = (
    "/board",
    "/board/overdue",
    "/board/inversions",
    "/board/proposals",
    "/board/programs?proposal=pid_1_1",
    "/board/scans",
    "/board/scans/windows?source=metadata_store",
    "/board/scans/rejected",
    *(op_address(op_name(number)) for number in range(1, 4)),
    "/board/op/nobody",
)


def test_no_page_breaks_a_rule_of_accessibility_nor_a_narrow_window(world, browser):
    context = browser.new_context(viewport={"width": 400, "height": 800})
    context.add_cookies([{"name": "l2_token", "value": world.token("olga", "operator"), "url": world.url}])
    page, axe = context.new_page(), Axe()
    for path in PATHS:
        page.goto(f"{world.url}{path}")
        found = axe.run(page)
        assert found.violations_count == 0, f"{path}\n{found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, path
    page.emulate_media(color_scheme="dark")
    for path in ("/board", "/board/scans", op_address(op_name(3))):
        page.goto(f"{world.url}{path}")
        found = axe.run(page, options={"runOnly": ["color-contrast"]})
        assert found.violations_count == 0, f"{path} in the dark\n{found.generate_report()}"
    context.close()


def test_forms_from_elsewhere_and_by_readers_write_nothing(world, new_op):
    op = new_op()
    with httpx.Client(base_url=world.url, cookies=cookies(world, "bob")) as bob:
        claim = {"order": "claim"}
        for headers in ({}, {"Origin": "https://example.org"}, {"Origin": "null"}):
            assert bob.post(op_address(op), data=claim, headers=headers).status_code == 403
        own = {"Origin": world.url}
        assert bob.post(op_address(op), data={"order": "sell"}, headers=own).status_code == 422
        assert bob.post(op_address("nobody"), data=claim, headers=own).status_code == 404
        assert world.ledger.present(op).state is State.PREPROCESSED
        assert bob.post(op_address(op), data=claim, headers=own).status_code == 303
        again = bob.post(op_address(op), data=claim, headers=own)
        assert (again.status_code, "it is yours already" in again.text) == (409, True)
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
            for number in re.findall(
                r'scope="row"><a [^>]*>[^<]*</a></th><td class="number">(\d+)', proposals.text
            )
        ]
        assert sum(totals) == len(world.ledger.present_all())
        counted = re.findall(r'href="(/board/programs[^"]*state=(\w+))">(\d+)', proposals.text)
        assert {state for _path, state, _number in counted} >= {"Discovered", "Published"}
        for path, state, number in counted:
            of_it = rita.get(path.replace("&amp;", "&")).text
            assert re.findall(r'<span class="state [^>]*>(\w+)<', of_it) == [state] * int(number)
        inversions = re.findall(r'scope="row">(inv[^<]*)<', rita.get("/board/inversions").text)
        assert inversions == [f"inv.{number:06d}" for number in reversed(range(20))], "The newest first."
        for path in ("/board?state=Lost&for=nobody", "/board?offset=5000"):
            assert "Nothing waits." in rita.get(path).text
        assert rita.get("/board/picture/" + op_name(0)).status_code == 404
