"""What Dagster loads: the graph, the sensor's level, the pool, and the runs of commands that were killed."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.events import StepSuccessData
from dagster_dbt import DbtProject

from dagster_l2 import jobs, project, sensors
from dagster_l2.build import build_defs
from dagster_l2.cli.runner import OF_THE_CODE_LOCATION
from dagster_l2.ledger import Ledger, State
from dagster_l2.pipeline.holds import approve, note_waiting
from dagster_l2.settings import REPOSITORY, load_settings

pytestmark = pytest.mark.xdist_group("dagster")

SNAPSHOT = Path(__file__).parent / "asset_graph.txt"


@pytest.fixture
def defs(data: Path) -> dg.Definitions:
    return build_defs(settings=load_settings())


def graph(defs: dg.Definitions) -> str:
    """Every asset with its group and what it depends on, a line each."""
    nodes = defs.resolve_asset_graph().asset_nodes
    lines = []
    for node in sorted(nodes, key=lambda node: node.key.to_user_string()):
        parents = ", ".join(sorted(key.to_user_string() for key in node.parent_keys))
        lines.append(f"{node.key.to_user_string()} [{node.group_name}] <- {parents}".rstrip(" <-"))
    return "\n".join(lines) + "\n"


def test_the_asset_graph_is_the_one_that_was_reviewed(defs: dg.Definitions) -> None:
    """Set WRITE_SNAPSHOT to write it anew; the difference is then seen in review."""
    if os.environ.get("WRITE_SNAPSHOT"):
        SNAPSHOT.write_text(graph(defs))
    assert graph(defs) == SNAPSHOT.read_text()


def test_the_ui_finds_the_runs_of_commands_with_their_job(defs: dg.Definitions) -> None:
    workspace = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text(encoding="utf-8"))
    location = workspace["load_from"][0]["python_module"]["location_name"]
    assert list(OF_THE_CODE_LOCATION.values()) == [f"{defs.get_repository_def().name}@{location}"]


def test_every_asset_has_a_description_an_owner_and_a_group(defs: dg.Definitions) -> None:
    for node in defs.resolve_asset_graph().asset_nodes:
        assert node.description, node.key
        assert node.owners, node.key
        assert node.group_name != "default", node.key


def test_all_that_opens_the_warehouse_is_in_its_pool(defs: dg.Definitions) -> None:
    job = defs.resolve_job_def("whole_pass")
    pools = {node.name: node.definition.pools for node in job.nodes}
    outside = {name for name, pool in pools.items() if pool != {"warehouse"}}
    assert outside == {
        "scan",
        "bronze__rejected_no_rejected_records",
        "inputs__frames",
        "ledger__handovers",
        "published__inversions",
        "bronze__transitions",
        "bronze__annotations",
    }


def test_the_hand_over_job_does_not_scan(defs: dg.Definitions) -> None:
    names = {node.name for node in defs.resolve_job_def("handover").nodes}
    assert names >= {"ledger__handovers", "published__inversions", "state_models", "gold__l2_duckdb"}
    assert not names & {"scan", "verdict_models", "ledger__decisions"}


def working(ledger: Ledger, op_id: str) -> str:
    details = {
        "package": "inputs/x/inputs.json",
        "instrument_program_id": "id.1.1",
        "dataset_ids": ["AAAAA"],
        "spectral_lines": ["Fe I (630.15 nm)"],
        "buckets": ["data"],
    }
    for state in (State.DISCOVERED, State.INVERTIBLE):
        ledger.append(op_id, state, actor="t", cause="t", inputs_hash="h", rule_version="r")
    ledger.record_preprocessed(op_id, inputs_hash="h", details=details, run_id=None, actor="t")
    return str(ledger.claim(op_id, actor="ann").inversion_id)


def tick(defs: dg.Definitions, instance: dg.DagsterInstance) -> Any:
    context = dg.build_sensor_context(
        instance=instance, resources={"l2": defs.resources["l2"]}, definitions=defs
    )
    return defs.get_repository_def().get_sensor_def("ready_events").evaluate_tick(context)


def test_the_sensor_asks_for_a_run_as_long_as_something_waits(
    defs: dg.Definitions, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long this test takes on a busy machine, it is no time yet to try again.
    monkeypatch.setattr(sensors, "RETRY_AFTER", timedelta(days=1))
    with dg.DagsterInstance.ephemeral() as instance, Ledger.open(load_settings().state_url) as ledger:
        assert "waits" in tick(defs, instance).skip_message
        working(ledger, "op1")
        assert not tick(defs, instance).run_requests
        for number in range(1, 9):  # more ids than a tag has room for
            if number > 1:
                working(ledger, f"op{number}")
            ledger.submit_ready(f"op{number}", products="/nowhere", commit_hash="1234567", actor="ann")
        for _ in range(2):  # a run that never came to anything is asked for again: no cursor, no run key
            (request,) = tick(defs, instance).run_requests
            assert request.run_key is None
        run = instance.create_run_for_job(defs.resolve_job_def("handover"), tags=request.tags)
        assert "is at it" in tick(defs, instance).skip_message
        instance.report_run_failed(run)
        assert "tried again later" in tick(defs, instance).skip_message
        ledger.submit_ready("op1", products="/elsewhere", commit_hash="1234567", actor="ann")
        assert tick(defs, instance).run_requests


def test_a_run_that_has_published_holds_up_one_more_but_no_third(
    defs: dg.Definitions, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it still does is the states and gold, which nobody who says ready waits for."""
    monkeypatch.setattr(sensors, "RETRY_AFTER", timedelta(days=1))
    with dg.DagsterInstance.ephemeral() as instance, Ledger.open(load_settings().state_url) as ledger:

        def begun(request: dg.RunRequest) -> dg.DagsterRun:
            return instance.create_run_for_job(defs.resolve_job_def("handover"), tags=request.tags)

        def ended(run: dg.DagsterRun, step: str) -> None:
            for kind, content in (("STEP_START", None), ("STEP_SUCCESS", StepSuccessData(duration_ms=1.0))):
                instance.report_dagster_event(
                    dg.DagsterEvent(kind, "handover", step_key=step, event_specific_data=content), run.run_id
                )

        for number in range(1, 5):
            working(ledger, f"op{number}")
        say = partial(ledger.submit_ready, products="/nowhere", commit_hash="1234567", actor="ann")
        say("op1")
        first = begun(*tick(defs, instance).run_requests)
        say("op2")
        ended(first, "ledger__handovers")
        assert "is at it" in tick(defs, instance).skip_message
        ended(first, jobs.PUBLISHING_STEP)
        second = begun(*tick(defs, instance).run_requests)
        say("op3")
        ended(second, jobs.PUBLISHING_STEP)
        assert "is at it" in tick(defs, instance).skip_message
        instance.report_run_failed(first)
        assert tick(defs, instance).run_requests


def test_the_sensor_is_looked_at_each_time_that_dagster_looks(defs: dg.Definitions) -> None:
    sensor = defs.get_repository_def().get_sensor_def("ready_events")
    # Dagster looks each 5 s, and at one that is to wait as long only the second time when it is a hair early.
    assert load_settings().ready_sensor_s == 5
    assert sensor.minimum_interval_seconds == 4


def test_the_process_of_a_run_does_not_parse_the_dbt_project(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[DbtProject] = []
    monkeypatch.setattr(DbtProject, "prepare_if_dev", lambda one: parsed.append(one))
    runpy.run_path(project.__file__)
    assert len(parsed) == 1
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    runpy.run_path(project.__file__)
    assert len(parsed) == 1


def test_the_sensor_leaves_what_is_held_back_alone(defs: dg.Definitions, data: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance, Ledger.open(load_settings().state_url) as ledger:
        working(ledger, "op1")
        event = ledger.submit_ready("op1", products="/x", commit_hash="1234567", actor="ann")
        ledger.settle(event, lambda _event: {"products": []}, run_id=None, actor="t")
        present = ledger.present("op1")
        assert present.state is State.INVERTED
        assert tick(defs, instance).run_requests
        assert sensors.waiting_work(ledger) == [present.inversion_id]
        note_waiting(ledger, present, "embargoed until 2030-01-01", actor="t")
        assert not tick(defs, instance).run_requests
        approve(ledger, present, actor="olga")  # which lifts no embargo
        assert not tick(defs, instance).run_requests


def test_an_approval_starts_a_run_at_once(
    defs: dg.Definitions, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "RETRY_AFTER", timedelta(days=1))
    with dg.DagsterInstance.ephemeral() as instance, Ledger.open(load_settings().state_url) as ledger:
        working(ledger, "op1")
        event = ledger.submit_ready("op1", products="/x", commit_hash="1234567", actor="ann")
        ledger.settle(event, lambda _event: {"products": []}, run_id=None, actor="t")
        (request,) = tick(defs, instance).run_requests
        run = instance.create_run_for_job(defs.resolve_job_def("handover"), tags=request.tags)
        note_waiting(ledger, ledger.present("op1"), "waits for approval by an operator", actor="t")
        instance.report_run_failed(run)
        assert not tick(defs, instance).run_requests
        approve(ledger, ledger.present("op1"), actor="olga")
        (request,) = tick(defs, instance).run_requests
        instance.report_run_failed(
            instance.create_run_for_job(defs.resolve_job_def("handover"), tags=request.tags)
        )
        assert "tried again later" in tick(defs, instance).skip_message


def test_the_sensor_leaves_an_op_in_error_alone_until_it_is_retried(defs: dg.Definitions, data: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance, Ledger.open(load_settings().state_url) as ledger:
        working(ledger, "op1")
        event = ledger.submit_ready("op1", products="/x", commit_hash="1234567", actor="ann")
        assert tick(defs, instance).run_requests
        ledger.fail("op1", step="verify", error_class="transient", message="m", actor="t", run_id=None)
        assert not tick(defs, instance).run_requests
        ledger.retry_transient(3, actor="t", run_id=None)
        assert tick(defs, instance).run_requests
        assert sensors.waiting_work(ledger) == [event.event_id]
        ledger.settle(event, lambda _event: {"products": []}, run_id=None, actor="t")
        ledger.fail("op1", step="publish", error_class="permanent", message="m", actor="t", run_id=None)
        assert not tick(defs, instance).run_requests


BURY = """
import os, sys, dagster as dg
from dagster_l2 import sensors
from dagster_l2.build import build_defs
from dagster_l2.cli.runner import LAUNCHED_BY, _bury_the_dead, _run_lock, prepare_dagster_home
from dagster_l2.base.files import only_one
from dagster_l2.settings import load_settings
settings = load_settings()
prepare_dagster_home(settings)
job = build_defs(settings=settings).resolve_job_def("scan_store")
with dg.DagsterInstance.get() as instance:
    storage = instance.event_log_storage
    if sys.argv[1] == "dies":
        run = instance.create_run_for_job(job, tags={LAUNCHED_BY: "l2"})
        storage.initialize_concurrency_limit_to_default("warehouse")
        assert storage.claim_concurrency_slot("warehouse", run.run_id, "step").is_claimed
        with only_one(_run_lock(settings, run.run_id), "x"):
            os.kill(os.getpid(), 9)
    alive = instance.create_run_for_job(job, tags={LAUNCHED_BY: "l2"})
    other = instance.create_run_for_job(job)
    assert not storage.claim_concurrency_slot("warehouse", alive.run_id, "step").is_claimed
    with only_one(_run_lock(settings, alive.run_id), "x"):
        _bury_the_dead(settings, instance)
    print(sorted(run.status.value for run in instance.get_runs()))
    print(storage.claim_concurrency_slot("warehouse", alive.run_id, "step").is_claimed)
"""


def test_the_run_of_a_killed_command_is_ended_and_its_place_freed(data: Path) -> None:
    def run(part: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", BURY, part],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            env={**os.environ, "L2_DATA_DIR": str(data)},
        )

    assert run("dies").returncode == -9
    done = run("looks")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-2:] == ["['FAILURE', 'NOT_STARTED', 'NOT_STARTED']", "True"]
