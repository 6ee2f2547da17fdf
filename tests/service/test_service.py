"""What the service answers and writes: the ledger's own orders, by role, once each, refused in a sentence."""

from __future__ import annotations

import gc
import json
import logging
import threading
import weakref
from urllib.parse import quote

import duckdb
import httpx
import pytest
from service_world import PACKAGE, bring, make_gold, op_name, running

from dagster_l2.answers import live as live_module
from dagster_l2.cli import _run
from dagster_l2.ledger import State
from dagster_l2.pipeline.gold import OpenGold
from dagster_l2.pipeline.op_documents import documents_folder
from dagster_l2.service import Limits
from dagster_l2.service.pages import op_address
from dagster_l2.settings import Settings


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert set(said) == {"error", "kind"}
    assert said["error"].endswith(".")
    assert "\n" not in said["error"]
    return said["error"]


def test_without_a_token_there_is_nothing_but_health(world):
    with httpx.Client(base_url=world.url) as client:
        assert client.get("/healthz").json() == {"status": "well"}
        paths = ("/queue", "/observing-programs", "/openapi.json", "/metrics", f"/inversions/{op_name(1)}")
        for path in paths:
            assert "l2 token add" in refused(client.get(path), 401)
        for wrong in (
            "Bearer l2_0000000000_" + "A" * 43,
            "Bearer",
            "Basic eA==",
            world.token("r", "reader"),
        ):
            refused(client.get("/queue", headers={"Authorization": wrong}), 401)
        refused(client.post(f"/observing-programs/{op_name(1)}/claim"), 401)
        assert client.get("/docs").status_code == 404


def test_a_role_that_may_not_never_writes(world, new_op):
    op, published = new_op(), new_op(State.PUBLISHED)
    inverted = new_op(State.INVERTED)
    before = [world.ledger.history(one) for one in (op, published, inverted)]
    orders = {
        "claim": None,
        "release": None,
        "notes": {"text": "x"},
        "priority": {"level": 1, "reason": "x"},
        "ready": {"products": "/", "commit": "abcdef1"},
        "withdraw": {"reason": "x"},
        "retry": None,
        "assign": {"to": "x"},
    }
    decisions = {"publish": None, "reopen": {"reason": "x"}}
    with world.client("rita", "reader") as reader, world.client("bob") as scientist:
        for one in (op, published, inverted):
            for order, body in (orders | decisions).items():
                said = refused(reader.post(f"/observing-programs/{one}/{order}", json=body), 403)
                assert "rita has a reader's token" in said
            for order, body in decisions.items():
                refused(scientist.post(f"/observing-programs/{one}/{order}", json=body), 403)
    assert [world.ledger.history(one) for one in (op, published, inverted)] == before
    assert world.ledger.annotations(op) + world.ledger.annotations(inverted) == []


def test_the_way_from_claim_to_ready_and_its_refusals(world, new_op, tmp_path):
    op = new_op()
    with world.client("bob") as bob, world.client("cleo") as cleo:
        claimed = bob.post(f"/observing-programs/{op}/claim").json()
        assert (claimed["state"], claimed["actor"]) == ("Working", "bob")
        assert claimed["inversion_id"].startswith("inv.")
        assert "bob has claimed it" in refused(cleo.post(f"/observing-programs/{op}/claim"), 409)
        assert "only bob or an operator" in refused(cleo.post(f"/observing-programs/{op}/release"), 409)
        ready = {"products": str(tmp_path), "commit": "abcdef1", "checksums": {"a.fits": "0" * 64}}
        assert "only bob" in refused(cleo.post(f"/observing-programs/{op}/ready", json=ready), 409)
        gone = ready | {"products": str(tmp_path / "gone")}
        assert "is not there" in refused(bob.post(f"/observing-programs/{op}/ready", json=gone), 422)
        strange = ready | {"datasets": ["ZZZZZ"]}
        assert "ZZZZZ" in refused(bob.post(f"/observing-programs/{op}/ready", json=strange), 409)
        event = bob.post(f"/observing-programs/{op}/ready", json=ready)
        assert event.status_code == 202
        told = bob.get(f"/observing-programs/{op}").json()
        assert [one["event_id"] for one in told["hand_overs"]] == [event.json()["event_id"]]
        assert told["inversions"][0]["dataset_ids"] == PACKAGE["dataset_ids"]
        assert told["history"][-1]["to_state"] == "Working"
        inversion = bob.get(f"/inversions/{claimed['inversion_id']}").json()
        assert (inversion["op_id"], inversion["claimed_by"], len(inversion["steps"])) == (op, "bob", 1)
        refused(bob.get("/inversions/inv.NONE00"), 404)
        refused(bob.post("/observing-programs/nobody/claim"), 404)
        refused(bob.post("/observing-programs/nobody/ready", json=ready), 404)
    events = world.ledger.events(op)
    assert [event.details["checksums"] for event, _outcome in events] == [{"a.fits": "0" * 64}]
    assert events[0][0].actor == "bob"


def test_operators_release_publish_and_reopen(world, new_op):
    working, inverted, published = new_op(State.WORKING), new_op(State.INVERTED), new_op(State.PUBLISHED)
    with world.client("olga", "operator") as olga:
        assert olga.post(f"/observing-programs/{working}/release").json()["state"] == "Preprocessed"
        refused(olga.post(f"/observing-programs/{working}/publish"), 422)
        approved = olga.post(f"/observing-programs/{inverted}/publish")
        assert (approved.status_code, approved.json()["approved_by"]) == (202, "olga")
        row = {row["op_id"]: row for row in olga.get("/queue").json()["items"]}[inverted]
        assert row["state"] == "Inverted"
        said = olga.post(f"/observing-programs/{published}/reopen", json={"reason": "calibration"}).json()
        assert (said["state"], said["details"]["reason"]) == ("Invertible", "calibration")
        assert "reason" in refused(olga.post(f"/observing-programs/{published}/reopen", json={}), 422)
    assert [note.kind for note in world.ledger.annotations(inverted)] == ["publish_approved"]


def test_a_repeated_request_with_its_key_is_one_event_whatever_happened_since(world, new_op, tmp_path):
    op, products = new_op(), tmp_path / "products"
    products.mkdir()
    with world.client("bob") as bob:

        def post(order, key, body=None):
            path = f"/observing-programs/{op}/{order}"
            return bob.post(path, json=body, headers={"Idempotency-Key": key})

        ready = {"products": str(products), "commit": "abcdef1"}
        firsts = [
            post("claim", "a"),
            post("notes", "b", {"text": "x"}),
            post("priority", "c", {"level": 2, "reason": "y"}),
            post("ready", "d", ready),
            post("release", "e"),
        ]
        products.rmdir()
        again = [
            post("claim", "a"),
            post("notes", "b", {"text": "x"}),
            post("priority", "c", {"level": 2, "reason": "y"}),
            post("ready", "d", ready),
            post("release", "e"),
        ]
        assert all(answer.is_success for answer in firsts), [answer.text for answer in firsts]
        assert [answer.text for answer in again] == [answer.text for answer in firsts]
        assert [step.to_state.value for step in world.ledger.history(op)][2:] == [
            "Preprocessed",
            "Working",
            "Preprocessed",
        ]
        assert len(world.ledger.events(op)) == 1
        assert len(world.ledger.annotations(op)) == 2
        assert "draw a new one" in refused(post("notes", "b", {"text": "another"}), 422)


def test_the_queue_is_the_one_of_the_command_and_follows_every_writer(world, new_op, monkeypatch, capsys):
    op = new_op()
    monkeypatch.setenv("L2_DATA_DIR", str(world.settings.data))
    with world.client("bob") as bob:
        for said in (
            lambda: None,
            lambda: world.ledger.prioritize(op, 9, reason="flare", actor="ann"),
            lambda: _run(["claim", op, "--as", "bob"]),
            lambda: new_op(State.INVERTED),
        ):
            said()
            capsys.readouterr()
            _run(["queue", "--json", "--limit", "1000"])
            wanted = json.loads(capsys.readouterr().out)
            answered = bob.get("/queue", params={"limit": 1000}).json()
            assert [row["op_id"] for row in answered["items"]] == [row["op_id"] for row in wanted]
            assert [row["responsible"] for row in answered["items"]] == [row["responsible"] for row in wanted]
            assert [row["rank"] for row in answered["items"]] == list(range(1, len(wanted) + 1))
        mine = bob.get("/queue", params={"for": "bob", "state": "Working", "limit": 1000}).json()
        assert op in {row["op_id"] for row in mine["items"]}
        assert {row["responsible"] for row in mine["items"]} == {"bob"}
        second = bob.get("/queue", params={"limit": 1, "offset": 1}).json()
        assert (second["items"][0]["rank"], second["total"]) == (2, len(wanted))


def test_ops_are_filtered_and_paged_and_told_since(world, new_op):
    with world.client("rita", "reader") as rita:
        every = rita.get("/observing-programs", params={"limit": 1000}).json()
        ids = [row["op_id"] for row in every["items"]]
        assert ids == sorted(world.ledger.present_all())
        paged, after = [], None
        while True:
            page = rita.get("/observing-programs", params={"limit": 2} | ({"after": after} if after else {}))
            paged += [row["op_id"] for row in page.json()["items"]]
            after = page.json()["next_after"]
            if after is None:
                break
        assert paged == ids

        def found(**asked):
            items = rita.get("/observing-programs", params={"limit": 1000, **asked}).json()["items"]
            return [row["op_id"] for row in items]

        assert found(proposal="pid_1_3") == [op_name(3)]
        assert op_name(0) in found(state="Discovered", instrument="VISP")
        assert found(instrument="VTF") == []
        assert found(observed_from="2024-04-18", observed_to="2024-04-18") == [op_name(n) for n in (4,)]
        since = every["as_of"]
        mine = new_op()
        assert mine in found(since=since)
        assert op_name(0) not in found(since=since) or found(since="2999-01-01") == []
        refused(rita.get("/observing-programs", params={"state": "Lost"}), 422)
        refused(rita.get("/observing-programs", params={"since": "yesterday"}), 422)


def test_an_id_with_slashes_lines_and_marks_is_one_like_any_other(world):
    op = "../../eid_1' or '1'='1\"; --\n[bold]<b>?x=1#%2F"
    bring(world.ledger, op, State.PREPROCESSED)
    with world.client("bob") as bob:
        path = f"/observing-programs/{quote(op, safe='')}"
        assert bob.get(path).json()["op_id"] == op
        assert bob.post(f"{path}/claim").json()["op_id"] == op
        page = bob.get(op_address(op), headers={"Cookie": f"l2_token={world.token('bob', 'scientist')}"})
        assert (page.status_code, "[bold]&lt;b&gt;" in page.text) == (200, True)
    assert world.ledger.present(op).claimed_by == "bob"


def test_a_body_that_is_no_json_is_said_so(world, new_op):
    path = f"/observing-programs/{new_op()}/notes"
    with world.client("bob") as bob:
        headers = {"Content-Type": "application/json"}
        assert "no JSON" in refused(bob.post(path, content='{"text": "x"', headers=headers), 422)
        form = bob.post(path, data={"text": "x"})
        assert "Content-Type: application/json" in refused(form, 422)
        said = refused(bob.post(path, json=["x"]), 422)
        assert said.startswith("body: ")


def test_published_documents_have_a_tag_and_tell_since(world):
    folder = documents_folder(world.settings.lake)
    folder.mkdir(parents=True, exist_ok=True)
    document = {"op_id": "op x", "updated_at": "2026-01-01T00:00:00Z", "states": []}
    (folder / "one.json").write_text(json.dumps(document), encoding="utf-8")
    with world.client("rita", "reader") as rita:
        first = rita.get("/published/observing-programs")
        assert first.json() == {"documents": [document], "next_since": document["updated_at"]}
        tag = first.headers["ETag"]
        assert rita.get("/published/observing-programs", headers={"If-None-Match": tag}).status_code == 304
        later = rita.get("/published/observing-programs", params={"since": document["updated_at"]}).json()
        assert later["documents"] == []
        refused(rita.get("/published/observing-programs", params={"since": "yesterday"}), 422)
        refused(rita.get("/published/observing-programs/nobody"), 404)
        assert "l2_observing_programs{state=" in rita.get("/metrics").text


def test_no_token_in_a_log_and_none_but_its_hash_in_the_database(world, new_op, caplog):
    caplog.set_level(logging.DEBUG)
    op = new_op()
    with world.client("bob") as bob:
        bob.post(f"/observing-programs/{op}/claim")
        bob.get("/queue", headers={"Authorization": f"Bearer {world.token('bob', 'scientist')}x"})
    form = {"token": world.token("bob", "scientist")}
    for origin, status in ((world.url, 303), ("https://example.org", 403)):
        answer = httpx.post(f"{world.url}/board/sign-in", data=form, headers={"Origin": origin})
        assert answer.status_code == status
    lines = [record for record in caplog.records if record.name.startswith("dagster_l2.service")]
    assert any(record.who == "bob" and record.status == 200 for record in lines)
    # The client of this test logs what it sends and gets; that is not the service's log.
    records = [record for record in caplog.records if not record.name.startswith(("httpcore", "httpx"))]
    everything = "".join(f"{record.getMessage()} {vars(record)}" for record in records)
    files = b"".join(path.read_bytes() for path in world.settings.data.glob("l2.sqlite*"))
    for secret in world.secrets.values():
        random_part = secret.split("_", 2)[2]
        assert random_part not in everything
        assert random_part.encode() not in files


def test_limits_of_requests_bodies_and_wrong_tokens(world):
    limits = Limits(per_second=0.001, burst=3, body_bytes=200, failures_per_minute=2)
    with running(world.settings, limits) as strict:
        strict.secrets = {}
        with strict.client("ann") as ann, strict.client("eve") as eve:
            assert [ann.get("/queue").status_code for _ in range(4)] == [200, 200, 200, 429]
            assert int(ann.get("/queue").headers["Retry-After"]) > 0
            refused(ann.get("/queue"), 429)
            path = f"/observing-programs/{op_name(1)}/notes"
            refused(eve.post(path, json={"text": "x" * 300}), 413)

            def chunks():
                yield b'{"text": "'
                yield b"x" * 300
                yield b'"}'

            headers = {"Content-Type": "application/json"}
            refused(eve.post(path, content=chunks(), headers=headers), 413)
            assert eve.post(path, json={"text": "x"}).status_code == 201
        with httpx.Client(base_url=strict.url, headers={"Authorization": "Bearer no"}) as stranger:
            assert [stranger.get("/queue").status_code for _ in range(3)] == [401, 401, 429]


def test_gold_that_takes_the_place_of_another_is_read_at_once_though_readers_overlap(tmp_path):
    settings = Settings(data_dir=tmp_path)
    with running(settings) as world:
        world.ledger.append(op_name(0), State.DISCOVERED, actor="t", cause="t")
        with world.client("rita", "reader") as rita:
            assert "l2 run" in refused(rita.get("/queue"), 503)
            for path in ("/board", "/board/overdue", "/board/scans"):
                page = rita.get(path, headers={"Cookie": f"l2_token={world.token('rita', 'reader')}"})
                assert (page.status_code, "l2 run" in page.text) == (503, True), "As a page, in a sentence."
            assert rita.get("/observing-programs").json()["items"][0]["proposal_id"] is None
            assert rita.get(f"/observing-programs/{op_name(0)}").json()["datasets"] == []
            make_gold(settings.gold, 1)
            stop = threading.Event()
            failed: list[str] = []

            def look() -> None:
                with world.client("rita", "reader") as other:
                    while not stop.is_set():
                        answer = other.get(f"/observing-programs/{op_name(0)}")
                        if answer.status_code != 200:
                            failed.append(answer.text)

            readers = [threading.Thread(target=look) for _ in range(3)]
            for reader in readers:
                reader.start()
            try:
                for number in range(5):
                    new = tmp_path / "new.duckdb"
                    make_gold(new, 1)
                    with duckdb.connect(str(new)) as gold:
                        gold.execute(f"update observing_programs set proposal_id = 'pid_{number}'")
                    new.replace(settings.gold)
                    told = rita.get(f"/observing-programs/{op_name(0)}").json()
                    assert told["observing_program"]["proposal_id"] == f"pid_{number}"
                    row = rita.get("/observing-programs").json()["items"][0]
                    assert row["proposal_id"] == f"pid_{number}"
            finally:
                stop.set()
                for reader in readers:
                    reader.join()
            assert failed == []


def test_a_token_is_added_listed_and_revoked_by_command(world, monkeypatch, capsys):
    monkeypatch.setenv("L2_DATA_DIR", str(world.settings.data))
    assert _run(["token", "add", "dora", "--role", "reader", "--json"]) == 0
    added = json.loads(capsys.readouterr().out)
    headers = {"Authorization": f"Bearer {added['token']}"}
    with httpx.Client(base_url=world.url, headers=headers) as dora:
        assert dora.get("/queue").status_code == 200
        assert _run(["token", "list", "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)
        assert [token["name"] for token in listed if token["token_id"] == added["token_id"]] == ["dora"]
        assert added["token"] not in str(listed)
        assert _run(["token", "revoke", added["token_id"]]) == 0
        refused(dora.get("/queue"), 401)


@pytest.mark.parametrize("path", ["/nothing", "/observing-programs/x/y/z", "/%00", "/queue/"])
def test_what_is_not_there_is_said_in_a_sentence(world, path):
    with world.client("rita", "reader") as rita:
        assert rita.get(path).status_code in (404, 422)


def test_what_others_committed_out_of_order_is_seen_when_all_is_read_anew(world, new_op, monkeypatch):
    """PostgreSQL may commit a lower id after a higher one, which looking for newer ids would never find."""
    op = new_op()
    live = live_module.Live(world.ledger, OpenGold(world.settings.gold))
    assert op in {row["op_id"] for row in live.queue()}
    world.ledger.prioritize(op, 9, reason="flare", actor="ann")
    ids = world.ledger.latest_ids()
    with monkeypatch.context() as patched:
        patched.setattr(world.ledger, "ops_since", lambda *_ids: set())
        assert {row["op_id"]: row["priority"] for row in live.queue()}[op] == 0
        patched.setattr(live_module, "_WHOLE_AFTER_S", -1.0)
        live.queue()
        live.close()
        assert {row["op_id"]: row["priority"] for row in live.queue()}[op] == 9
    assert world.ledger.latest_ids() == ids
    live.close()


def test_what_is_kept_is_out_of_the_collectors_way_and_garbage_is_not_kept_with_it(world, monkeypatch):
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    in_use = Cycle()
    garbage = weakref.ref(in_use)
    live = live_module.Live(world.ledger, OpenGold(world.settings.gold))
    kept = next(row for row in live.programs() if row["instruments"])
    assert gc.is_tracked(kept)
    assert not any(walked is kept for walked in gc.get_objects())
    del in_use
    monkeypatch.setattr(live_module, "_WHOLE_AFTER_S", -1.0)
    live.programs()
    live.close()
    assert garbage() is None
