"""Bad input and bad circumstances: one sentence, an exit code, nothing lost, and the next run goes on."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import duckdb
import pytest

import dagster_l2.store
from dagster_l2.ledger import Ledger, Verdict
from dagster_l2.store import StoreClient
from tests.end_to_end.kit import (
    COMMAND,
    Pipeline,
    Store,
    by_op,
    expected_states,
    generated,
    rename_op,
    wait_until,
)

pytestmark = pytest.mark.xdist_group("bad_input")

HOSTILE = (
    "../x",
    "../../../../etc/cron.d/x",
    "it's '; drop table op_transitions; --",
    'a "quoted" id',
    "two\nlines\r\nError: of its own",
    "[bold]markup[/bold]<script>alert(1)</script>",
    "x" * 300,
)
COMMIT = ("--commit", "0123456789abcdef")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, generated(3, seed=2))


@pytest.fixture
def served(store: Store, l2: Pipeline) -> Iterator[Store]:
    """The store is up and the command knows it."""
    with store.served() as settings:
        l2.settings = settings
        yield store


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tries as ever, with shorter waits between them."""
    monkeypatch.setattr(dagster_l2.store, "StoreClient", partial(StoreClient, first_wait_s=0.01))


@pytest.fixture
def ledger(l2: Pipeline) -> Iterator[Ledger]:
    """A ledger with one OP in each of three states, as an earlier pass would have left it."""
    l2.data.mkdir()
    with Ledger.open(f"sqlite:///{l2.data / 'l2.sqlite'}") as ledger:
        verdicts = [
            Verdict(
                "op_bad", True, True, False, failed_criteria=("stokes",), inputs_hash="h", rule_version="r"
            ),
            Verdict("op_new", True, False, False, inputs_hash="h", rule_version="r"),
            Verdict("op_good", True, True, True, inputs_hash="h", rule_version="r"),
        ]
        ledger.decide(verdicts, actor="pipeline")
        yield ledger


def _every_command(op_id: str, products: Path) -> Iterator[list[str]]:
    """Each command that takes an OP."""
    yield ["show", op_id]
    yield ["show", op_id, "--json"]
    yield ["history", op_id]
    yield ["why", op_id]
    yield ["replay", op_id]
    yield ["claim", op_id]
    yield ["release", op_id]
    yield ["ready", op_id, "--products", str(products), *COMMIT]
    yield ["withdraw", op_id, "--reason", "why"]
    yield ["publish", op_id, "--as", "operator"]
    yield ["reopen", op_id, "--reason", "why", "--as", "operator"]
    yield ["retry", op_id]


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# -- the store ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_impatient")
def test_a_store_that_misbehaves(l2: Pipeline, served: Store) -> None:
    """Each failed scan says what was wrong; the first good one then finds everything."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    down = l2.here("scan", code=1, L2_STORE_URL=f"http://127.0.0.1:{port}")
    assert "does not answer" in down.error
    assert "L2_STORE_URL" in down.error

    wrong = l2.here("scan", code=1, L2_STORE_TOKEN="secret-but-wrong")
    assert "L2_STORE_TOKEN" in wrong.error
    assert "secret-but-wrong" not in wrong.out + wrong.err

    for kind, expected in (
        ("html", "web page"),
        ("graphql_errors", "answered with an error"),
        ("cut", "broke off"),
        ("status", "HTTP 503"),
        ("wrong_count", "counts"),
    ):
        served.faults.add(kind)
        assert expected in l2.here("scan", code=1).error, kind
        served.faults.clear()

    counts = l2.here("scan", "--json").json
    assert counts["new"] + counts["unchanged"] == len(served.records.datasets)
    again = l2.here("scan", "--json").json
    assert (again["new"], again["unchanged"]) == (0, len(served.records.datasets))


@pytest.mark.usefixtures("_impatient")
def test_a_store_that_lost_most_of_its_records(l2: Pipeline, served: Store) -> None:
    """An outage is no disappearance: nothing is marked missing, and people are told, though not here."""
    l2.here("scan")
    served.faults.add("empty")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    for _ in range(2):
        assert "missing" in l2.here("scan", code=1, L2_ALERT_URL=nobody).error
    (alert,) = l2.here("alerts", "--json").json
    assert (alert["kind"], alert["delivered"]) == ("scan_missing", {})
    served.faults.clear()
    assert l2.here("scan", "--json").json["missing"] == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [("{not json", "JSON"), ('{"data": {}}', "no dump"), ("", "JSON"), ("[1, 2]", "no dump")],
)
def test_a_dump_that_is_none(l2: Pipeline, content: str, expected: str) -> None:
    dump = l2.home / "dump.json"
    dump.write_text(content)
    error = l2.here("scan", code=1, L2_STORE_RECORDS=str(dump)).error
    assert expected in error
    assert str(dump) in error


# -- settings -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    "settings",
    [
        {"L2_DATABASE_URL": "postgresql+psycopg://u:hidden-word@127.0.0.1:1/none"},
        {"L2_DATABASE_URL": "nonsense"},
    ],
)
def test_addresses_that_lead_nowhere(l2: Pipeline, settings: dict[str, str]) -> None:
    done = l2.here("scan", code=1, **settings)
    assert done.error
    assert "hidden-word" not in done.out + done.err


def test_a_demo_and_a_store_never_mix(l2: Pipeline, served: Store) -> None:
    l2.data.mkdir()
    mark = l2.data / "origin.json"
    mark.write_text(json.dumps({"origin": "demo"}))
    for command in (["run"], ["scan"], ["status"], ["claim", "op"]):
        assert "demo" in l2.here(*command, code=2).error
    mark.write_text(json.dumps({"origin": "store"}))
    l2.settings = {}
    for command in (["run"], ["run", "--play-scientist"], ["scan"], ["status"]):
        assert "L2_STORE_URL" in l2.here(*command, code=2).error
    mark.write_text("{")
    assert "origin.json" in l2.here("scan", code=2).error
    assert _files(l2.data) == {"origin.json"}


def test_the_public_search_is_read_only(l2: Pipeline, ledger: Ledger) -> None:
    before = list(ledger.transitions())
    for command in (
        ["claim", "op_good"],
        ["ready", "op_good", "--products", str(l2.home), *COMMIT],
        ["publish", "op_good", "--as", "operator"],
        ["reopen", "op_good", "--reason", "why", "--as", "operator"],
        ["withdraw", "op_good", "--reason", "why"],
    ):
        error = l2.here(*command, code=2, L2_STORE_KIND="public", L2_STORE_URL="http://127.0.0.1:1").error
        assert "read only" in error
    assert list(ledger.transitions()) == before


# -- OPs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op_id", ["no_such_op", *HOSTILE])
def test_an_op_that_is_unknown(l2: Pipeline, ledger: Ledger, op_id: str) -> None:
    """In every command: not found, in one line whatever the id holds, and nothing is written."""
    before, files = list(ledger.transitions()), _files(l2.home.parent)
    for command in _every_command(op_id, l2.home):
        done = l2.here(*command, code=1)
        assert len(done.err.splitlines()) == 1, done.err
        assert done.error
        assert done.out == ""
    assert list(ledger.transitions()) == before
    assert _files(l2.home.parent) == files


def test_an_op_in_the_wrong_state(l2: Pipeline, ledger: Ledger) -> None:
    """The sentence names the state that the OP is in."""
    before = list(ledger.transitions())
    for op_id, state in (("op_bad", "NotInvertible"), ("op_new", "Discovered"), ("op_good", "Invertible")):
        commands = list(_every_command(op_id, l2.home))[5:]
        for command in commands:
            code = 2 if command[0] == "publish" else 1
            assert state in l2.here(*command, code=code).error, command
    assert list(ledger.transitions()) == before


def test_a_hand_over_that_cannot_be_meant(l2: Pipeline, ledger: Ledger) -> None:
    nowhere = str(l2.home / "nowhere")
    assert nowhere in l2.here("ready", "op_good", "--products", nowhere, *COMMIT, code=2).error
    for commit in ("", "HEAD", "0123", "0123456\n"):
        done = l2.here("ready", "op_good", "--products", str(l2.home), "--commit", commit, code=2)
        assert "--commit" in done.error
    sums = l2.home / "sums"
    for text in ("", "c0ffee1  inv_res_mod.fits\n"):
        sums.write_text(text)
        said = l2.here(
            "ready", "op_good", "--products", str(l2.home), *COMMIT, "--checksums", str(sums), code=2
        )
        assert "sha256sum" in said.error
    assert "operator" in l2.here("publish", "op_good", "--as", "mallory", code=1).error
    assert ledger.pending_events() == []


def test_before_the_first_pass(l2: Pipeline) -> None:
    """What reads gold says how to make it."""
    for command in (["sql", "select 1"], ["queue"], ["what-if", "--set", "health=1"], ["replay", "--all"]):
        assert "l2 run" in l2.here(*command, code=1).error
    assert l2.here("status", "--json").json["states"] == {}


def test_queries_that_are_refused(l2: Pipeline) -> None:
    l2.data.mkdir()
    gold = l2.data / "l2.duckdb"
    with duckdb.connect(str(gold)) as connection:
        connection.execute("create table work_queue as select 1 as rank")
    content = gold.read_bytes()
    for query in ("selec 1", "select * from nowhere", "delete from work_queue", "select 1 / 'x'", "\n;;"):
        l2.here("sql", query, code=2).error  # noqa: B018 - it asserts
    assert "one of" in l2.here("sql", "select 1", "--csv", "--json", code=2).error
    gold.write_bytes(b"not a database")
    assert l2.here("sql", "select 1", code=2).error
    gold.write_bytes(content)
    assert l2.here("sql", "--json", "from work_queue").json == [{"rank": 1}]


# -- circumstances ------------------------------------------------------------------------------------------


def test_a_second_one_does_not_start(l2: Pipeline, served: Store) -> None:
    served.faults.add("slow", seconds=600.0)
    first = l2.start("run")
    try:
        locks = [l2.data / "locks" / name for name in ("pass.lock", "scan.lock")]
        wait_until(lambda: all(lock.with_suffix(".json").exists() for lock in locks), first, "it scans")
        assert f"process {first.pid}" in l2("run", code=3).error
        assert f"process {first.pid}" in l2.here("scan", code=3).error
        assert l2.here("status", "--json").json["states"] == {}
    finally:
        first.kill()
        first.communicate()
    served.faults.clear()
    assert l2.here("scan", "--json").json["new"] == len(served.records.datasets)


def test_ctrl_c_ends_a_command_and_its_run(l2: Pipeline, served: Store) -> None:
    served.faults.add("slow", match="datasetInventories(", seconds=600.0)
    process = subprocess.Popen(
        [str(COMMAND), "scan"],
        env=l2.environment({}),
        cwd=l2.home,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, an interrupt is ignored from birth.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    lock = l2.data / "locks" / "scan.json"
    wait_until(lambda: lock.exists() and bool(served.faults.as_json()[0]["fired"]), process, "it scans")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("Error: Interrupted")
    served.faults.clear()
    assert l2.here("scan", "--json").json["new"] == len(served.records.datasets)


def test_a_full_disk(l2: Pipeline, store: Store) -> None:
    """No file may grow beyond a limit, as on a disk without room; with room again nothing is missing."""
    with store.served() as settings:
        l2.settings = settings
        l2.here("scan")
    store.records = generated(150, seed=2)
    with store.served() as settings:
        l2.settings = settings
        largest = max(path.stat().st_size for path in l2.data.rglob("*") if path.is_file())
        before = l2.bronze()
        for limit in (largest // 2, largest + 32_768):
            assert "nothing is lost" in _limited(l2, limit), limit
        assert {name: l2.bronze().get(name) for name in before} == before
        counts = l2.here("scan", "--json").json
        assert counts["new"] + counts["unchanged"] == len(store.records.datasets)


def _limited(l2: Pipeline, size: int) -> str:
    """The error of a scan whose files may not grow beyond ``size`` bytes."""
    found = subprocess.run(
        [str(COMMAND), "scan"],
        env=l2.environment({"L2_SCAN_WINDOW_RECORDS": "100000"}),
        cwd=l2.home,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        check=False,
    )
    assert found.returncode == 1, found.stderr
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in found.stderr
    return line


def test_hostile_ids_in_records_go_through_a_whole_pass(l2: Pipeline, tmp_path: Path) -> None:
    """They are judged, prepared and queued like any other, and nothing leaves the data folder."""
    records = generated(12, seed=3)
    for number, op_id in enumerate(by_op(records.datasets)):
        rename_op(records, op_id, f"{HOSTILE[number % len(HOSTILE)]}/{number}")
    for record in records.datasets:
        for name in ("datasetId", "productId", "instrumentProgramExecutionId", "primaryProposalId", "bucket"):
            # What is equal stays equal, so that the groupings are those of the harmless ids.
            record[name] = HOSTILE[sum(map(ord, record[name])) % len(HOSTILE)] + record[name]
    store = Store(tmp_path, records)
    with store.served() as settings:
        l2.settings = settings
        done = l2("run", "--json").json
    states = expected_states(records)
    assert done["failed"] == []
    assert done["scan"]["new"] == len(records.datasets)
    assert l2.states() == states
    prepared = {op_id for op_id, state in states.items() if state == "Preprocessed"}
    queue = l2.here("queue", "--json", "--limit", "50").json
    assert {row["op_id"] for row in queue if row["state"] == "Preprocessed"} == prepared
    assert len(list((l2.data / "inputs").iterdir())) == len(prepared)
    assert {path.name for path in (l2.data / "inputs").rglob("*") if path.is_file()} == {
        "inputs.json",
        "globus.txt",
        "rsync.txt",
    }
    for op_id in list(states)[: len(HOSTILE)]:
        assert l2.here("history", op_id, "--json").json[-1]["to_state"] == states[op_id]
        shown = l2.here("show", op_id).out.splitlines()
        assert shown[0] == f"OP {op_id if op_id.isprintable() else ascii(op_id)}"
    assert [path.name for path in l2.home.iterdir()] == ["data"]
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"home", "inversions"}
