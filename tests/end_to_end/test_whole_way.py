"""From the store to a published inversion, with the commands alone, on both state databases.

One world for both: an OP handed over badly, one badly and then well, one well but under embargo. The one
that gets published has an id that would leave its folder and break a query, if anything let it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import dkist
import httpx
import jsonschema
import numpy as np
import pytest

from dagster_l2.answers.serving import Serving
from dagster_l2.pipeline.op_documents import documents_folder, list_documents
from dagster_l2.products import MODEL_FILE, write_products
from dagster_l2.publishing import OP_DOCUMENT_SCHEMA
from dagster_l2.service import RunningService, service_app
from dagster_l2.settings import Settings
from tests.cluster import CLIENT, cutting
from tests.end_to_end.kit import (
    LONG_AGO,
    PATIENCE_S,
    Pipeline,
    Store,
    by_op,
    current,
    expected_states,
    expected_steps,
    generated,
    inversions,
    rename_op,
)
from tests.end_to_end.readers import analysts

MARTS = (
    "datasets",
    "observing_programs",
    "op_criteria",
    "op_qualification",
    "op_latest_state",
    "op_history",
    "work_queue",
    "inversions",
    "scan_coverage",
    "proposals",
    "warehouse_info",
)
HOSTILE = "../../eid_1' or '1'='1\"; drop table op_transitions; --\n[bold]<b>R001"
EMBARGO_END = "2999-12-31T00:00:00"
COMMIT = "0123456789abcdef"


@pytest.fixture
def world(tmp_path: Path) -> tuple[Store, str, str, str]:
    """A store of 12 OPs; the OP to be refused, the one to be published, the embargoed one."""
    records = generated(12, seed=3)
    states = expected_states(records)
    refused, good, embargoed = [op_id for op_id, state in sorted(states.items()) if state == "Preprocessed"][
        :3
    ]
    rename_op(records, good, HOSTILE)
    for number, record in enumerate(by_op(records.datasets)[HOSTILE]):
        record["bucket"] = "data"
        if record["instrumentName"] == "VISP":
            record["spectralLines"] = ["Fe I (630.25 nm)", f"Line {number}"]
    for number, record in enumerate(by_op(records.datasets)[embargoed]):
        record.update(isEmbargoed=True, embargoEndDate=EMBARGO_END, bucket=("data", "public")[number % 2])
    return Store(tmp_path, records), refused, HOSTILE, embargoed


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.xdist_group("whole_way_sqlite")),
        pytest.param("postgres", marks=pytest.mark.xdist_group("whole_way_postgres")),
    ]
)
def database(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings of the state database."""
    if request.param == "sqlite":
        return {}
    return {"L2_DATABASE_URL": request.getfixturevalue("postgres_url"), "L2_DB_SCHEMA": "whole_way"}


def test_from_the_store_to_a_published_inversion(
    l2: Pipeline, world: tuple[Store, str, str, str], database: dict[str, str], tmp_path: Path
) -> None:
    store, refused, good, embargoed = world
    with store.served() as settings:
        l2.settings = {**settings, **database, "L2_PUBLISH_BUCKET": "level2"}
        _first_pass(l2, store)
        after_first = datetime.now(UTC)
        with analysts(l2.data / "l2.duckdb", tmp_path):
            ids = _work_of_the_scientist(l2, refused, good, embargoed, tmp_path)
            _hand_overs_are_taken(l2, ids, refused, good, embargoed)
            _the_store_tells(settings, store, ids[good], good)
            _users_open_what_was_published(l2, settings, good)
            if not database:
                _a_second_pass_does_nothing(l2)
            _an_operator_approves(l2, settings, ids, refused, embargoed, tmp_path)
        if database:
            l2.settings |= {"L2_PUBLISH": "approve", "L2_PUBLISH_EMBARGOED": "true"}
            _what_is_destroyed_comes_back(l2, tmp_path / "backup")
        _analysts_find_everything(l2, good, after_first)
    assert store.creates == 2
    # Nothing was written beside the data folder: what is here, the test has put here.
    assert {path.name for path in tmp_path.iterdir()} - {"backup"} <= {
        "home", "products", "inversions.sqlite", "inversions.sqlite-wal", "inversions.sqlite-shm",
        "inversions.sqlite.lock", "holds.out", "holds.err", "opens.out", "opens.err",
    }  # fmt: skip
    assert [path.name for path in l2.home.iterdir()] == ["data"]


def _first_pass(l2: Pipeline, store: Store) -> None:
    done = l2("run", "--json").json
    expected = expected_states(store.records)
    assert done["scan"] == {
        "new": len(store.records.datasets), "changed": 0, "unchanged": 0, "rejected": 0, "missing": 0,
    }  # fmt: skip
    assert done["states"] == Counter(expected.values())
    assert done["published"] == []
    assert done["failed"] == []
    assert l2.states() == expected
    assert l2.steps() == {op_id: expected_steps(state) for op_id, state in expected.items()}
    figures = (l2.data / "metrics" / "l2.prom").read_text(encoding="utf-8")
    for state, number in Counter(expected.values()).items():
        assert f'l2_observing_programs{{state="{state}"}} {number}.0\n' in figures
    assert 'l2_windows{source="metadata_store",status="DOWNLOADED"}' in figures
    assert "\nl2_last_scan_timestamp_seconds " in figures
    assert "\nl2_observing_programs_overdue 0.0\n" in figures
    with dg.DagsterInstance.from_config(str(l2.data / "dagster")) as instance:
        for mart in MARTS:
            event = instance.get_latest_materialization_event(dg.AssetKey(["marts", mart]))
            assert event is not None, mart
            assert event.asset_materialization is not None, mart
            (counted,) = l2.sql(f"select count(*) as rows from {mart}")
            said = event.asset_materialization.metadata["dagster/row_count"]
            assert said.value == counted["rows"], mart


def _work_of_the_scientist(
    l2: Pipeline, refused: str, good: str, embargoed: str, folder: Path
) -> dict[str, str]:
    """Claim three OPs and hand them over: one badly, one badly and then well, one well; inversion ids."""
    ids = {op_id: _claim(l2, op_id) for op_id in (refused, good, embargoed)}
    assert len(set(ids.values())) == 3
    assert "ann" in l2.here("claim", good, "--as", "bob", code=1).error
    assert l2.here("show", good, "--json").json["state"]["claimed_by"] == "ann"

    bad = _products(folder / "products" / "bad", refused, ids[refused], spoil=_truncate)
    _ready(l2, refused, bad)
    assert "ann" in l2.here(
        "ready", good, "--products", str(bad), "--commit", COMMIT, "--as", "bob", code=1
    ).error  # fmt: skip
    _ready(l2, good, bad)
    _ready_from_the_cluster(l2, good, _products(folder / "products" / "good", good, ids[good]))
    _ready(l2, embargoed, _products(folder / "products" / "embargoed", embargoed, ids[embargoed]))
    return ids


def _hand_overs_are_taken(l2: Pipeline, ids: dict[str, str], refused: str, good: str, embargoed: str) -> None:
    done = l2("run", "--json")
    assert done.json["published"] == [ids[good]]
    assert done.json["failed"] == []
    assert {name: done.json["states"][name] for name in ("Working", "Inverted", "Published")} == {
        "Working": 1, "Inverted": 1, "Published": 1,
    }  # fmt: skip

    shown = l2.here("show", refused, "--json").json
    (hand_over,) = shown["hand_overs"]
    assert shown["state"]["state"] == "Working"
    assert hand_over["outcome"] == "refused"
    assert MODEL_FILE in hand_over["reason"]

    shown = l2.here("show", good, "--json").json
    assert shown["state"]["state"] == "Published"
    assert [(one["outcome"], bool(one["reason"])) for one in shown["hand_overs"]] == [
        ("refused", True),
        ("accepted", False),
    ]
    steps = [step["to_state"] for step in l2.here("history", good, "--json").json]
    assert steps == [*expected_steps("Preprocessed"), "Working", "Inverted", "Published"]

    assert "embargoed until 2999-12-31" in l2.here("show", embargoed).out
    queue = {row["op_id"]: row for row in l2.here("queue", "--json", "--limit", "50").json}
    assert queue[embargoed]["reason"] == "embargoed until 2999-12-31"
    assert queue[refused]["responsible"] == "ann"
    assert good not in queue


def _the_store_tells(settings: dict[str, str], store: Store, inversion_id: str, op_id: str) -> None:
    (record,) = inversions(settings)
    inputs = [r for r in current(by_op(store.records.datasets)[op_id]) if r["instrumentName"] == "VISP"]
    assert record["inversionId"] == inversion_id
    assert record["bucket"] == "data"
    assert record["primaryProposalId"] == inputs[0]["primaryProposalId"]
    assert record["instrumentProgramExecutionId"] == inputs[0]["instrumentProgramExecutionId"]
    assert sorted(record["datasetIds"]) == sorted(r["datasetId"] for r in inputs)
    assert set(record["spectralLines"]) == {line for r in inputs for line in r["spectralLines"]}


def _users_open_what_was_published(l2: Pipeline, settings: dict[str, str], op_id: str) -> None:
    (record,) = inversions(settings)
    level2 = l2.here("show", op_id, "--json").json["level2"]
    assert record["asdfObjectKey"] == level2["asdf_object_key"]
    published = l2.data / "published" / record["bucket"] / record["asdfObjectKey"]
    inversion = dkist.load_dataset(published)
    assert inversion.meta["inventory"]["inversionId"] == record["inversionId"]
    assert inversion.meta["inventory"]["observingProgramExecutionId"] == op_id
    assert np.isfinite(inversion["temperature"].data[0].compute()).all()
    assert {path.name for path in published.parent.iterdir()} == set(level2["files"])

    schema = jsonschema.Draft202012Validator(json.loads(OP_DOCUMENT_SCHEMA.read_text(encoding="utf-8")))
    documents = list_documents(documents_folder(l2.data / "lake")).documents
    for document in documents:
        schema.validate(document)
    with _service(l2) as (url, token), httpx.Client(headers={"Authorization": f"Bearer {token}"}) as ann:
        answer = ann.get(f"{url}/published/observing-programs")
        assert answer.json()["documents"] == documents, "What the metadata store would aggregate."
        assert ann.get(answer.url, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    (one,) = (document["inversions"][0] for document in documents if document["op_id"] == op_id)
    assert one["inversion_id"] == record["inversionId"]
    assert one["asdf_object_key"] == record["asdfObjectKey"]
    assert one["published_at"] is not None


def _a_second_pass_does_nothing(l2: Pipeline) -> None:
    before, bronze = _history(l2), l2.bronze()
    done = l2("run", "--json").json
    assert (done["scan"]["new"], done["scan"]["changed"]) == (0, 0)
    assert done["published"] == []
    assert _history(l2) == before
    assert l2.bronze() == bronze


def _what_is_destroyed_comes_back(l2: Pipeline, backup: Path) -> None:
    """With folder and database gone, a restored pass ends with the same gold and asks for nothing again."""
    gold = _gold(l2)
    l2.here("backup", str(backup), "--with", "products", "--with", "published")
    shutil.rmtree(l2.data)
    l2.settings["L2_DB_SCHEMA"] += "_restored"
    l2.here("restore", str(backup))
    assert l2.here("db", "check", "--json").json["is_in_order"]
    bronze = l2.bronze()
    done = l2("run", "--json").json
    assert (done["scan"]["new"], done["scan"]["changed"], done["published"]) == (0, 0, [])
    assert l2.bronze().items() >= bronze.items()
    restored = _gold(l2)
    for mart, rows in gold.items():
        assert restored[mart] == rows, mart


def _gold(l2: Pipeline) -> dict[str, list[dict[str, Any]]]:
    """What gold says, but for what grows with time or tells of single passes."""
    passing = {"op_history": "exclude (duration)", "op_latest_state": "exclude (days_in_state)"}
    told = set(MARTS) - {"work_queue", "scan_coverage", "warehouse_info"}
    return {mart: l2.sql(f"select * {passing.get(mart, '')} from {mart} order by all") for mart in told}


def _history(l2: Pipeline) -> list[dict[str, Any]]:
    """All transitions as analysts see them, but for the length of the last one, which grows with time."""
    return l2.sql("select * exclude (duration) from op_history order by op_id, seq")


def _an_operator_approves(
    l2: Pipeline, settings: dict[str, str], ids: dict[str, str], refused: str, embargoed: str, folder: Path
) -> None:
    """With approval asked for and the embargo lifted, what is approved goes out and the other one waits."""
    _ready(l2, refused, _products(folder / "products" / "redone", refused, ids[refused]))
    approve = {"L2_PUBLISH": "approve", "L2_PUBLISH_EMBARGOED": "true"}
    assert "operator" in l2.here("publish", embargoed, "--as", "ann", code=1, **approve).error
    done = l2("publish", embargoed, "--as", "operator", "--json", **approve).json
    assert (done["state"], done["inversion_id"]) == ("Published", ids[embargoed])
    waiting = l2.here("show", refused, "--json", **approve).json["state"]
    assert waiting["state"] == "Inverted"
    assert "approval" in waiting["waits for"]
    (record,) = [r for r in inversions(settings) if r["inversionId"] == ids[embargoed]]
    assert record["bucket"] == "level2"  # its inputs lie in two buckets


def _analysts_find_everything(l2: Pipeline, good: str, after_first: datetime) -> None:
    for mart in MARTS:
        assert l2.sql(f"select * from {mart} limit 3"), mart
        assert (l2.data / "lake" / "gold" / f"{mart}.parquet").is_file()
    assert l2.states()[good] == "Published"
    rows = l2.sql("from inversion_quality order by product_file, quantity")
    quality = [row for row in rows if row["op_id"] == good]  # its id is no text for a query
    assert len(quality) == 11 + 2 * 4
    (temperature,) = [row for row in quality if row["quantity"] == "temperature"]
    assert (temperature["unit"], temperature["finite_share"]) == ("K", 1.0)
    assert 1000 < temperature["minimum"] < temperature["mean"] < temperature["maximum"] < 50000
    moment = after_first.replace(tzinfo=None).isoformat()
    then = {row["op_id"]: row["state"] for row in l2.sql(f"from op_state_as_of(timestamp '{moment}')")}
    assert then[good] == "Preprocessed"
    assert l2.sql(f"from op_state_as_of(timestamp '{LONG_AGO:%Y-%m-%d}')") == []


def _claim(l2: Pipeline, op_id: str) -> str:
    inversion_id: str = l2.here("claim", op_id, "--as", "ann", "--json").json["inversion_id"]
    return inversion_id


def _ready(l2: Pipeline, op_id: str, products: Path) -> None:
    l2.here("ready", op_id, "--products", str(products), "--commit", COMMIT, "--as", "ann")


@contextmanager
def _service(l2: Pipeline) -> Iterator[tuple[str, str]]:
    """The service over the same folder and database: its address, and ann's token."""
    given = {name.removeprefix("L2_").lower(): text for name, text in l2.settings.items()}
    with Serving(Settings(data_dir=l2.data, **given)) as backend:
        _token, secret = backend.ledger.add_token("ann", "scientist", actor="t")
        with RunningService(service_app(backend)) as service:
            yield service.url, secret


def _ready_from_the_cluster(l2: Pipeline, op_id: str, products: Path) -> None:
    """The client says it once and its answer is cut off; by itself it says the same again."""
    before = len(l2.here("show", op_id, "--json").json["hand_overs"])
    with _service(l2) as (url, token), cutting(url, 1) as way:
        command = ["ready", op_id, "--products", str(products), "--commit", COMMIT]
        environment = {"L2_URL": way, "L2_TOKEN": token, "L2_STATE": str(l2.data / "cluster")}
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(CLIENT), *command],
            env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = l2.here("show", op_id, "--json").json["hand_overs"]
    assert [one["event_id"] for one in shown[before:]] == [done.stdout.strip()], "One event."


def _products(
    folder: Path, op_id: str, inversion_id: str, spoil: Callable[[Path], Any] = lambda folder: None
) -> Path:
    write_products(folder, op_id=op_id, inversion_id=inversion_id, lines=["Fe I (630.15 nm)"], seed=1)
    spoil(folder)
    return folder


def _truncate(folder: Path) -> None:
    """As a copy that broke off leaves it."""
    file = folder / MODEL_FILE
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
