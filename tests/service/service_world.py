"""A ledger with OPs of any number in every state, gold to go with it, and the service over both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import httpx

from dagster_l2.answers.serving import Serving
from dagster_l2.ledger import Ledger, Role, State
from dagster_l2.service import Limits, RunningService, service_app
from dagster_l2.settings import Settings

SEEDS = Path(__file__).resolve().parents[2] / "dbt_project" / "seeds" / "states"
WAY = (State.DISCOVERED, State.INVERTIBLE, State.PREPROCESSED, State.WORKING, State.INVERTED, State.PUBLISHED)
PACKAGE = {
    "package": "inputs/op/inputs.json",
    "instrument_program_id": "id.1",
    "dataset_ids": ["AAAAA", "BBBBB"],
    "spectral_lines": ["Fe I (630.15 nm)"],
    "buckets": ["data"],
}
_SCORES = ("readiness", "fried_parameter", "adaptive_optics", "lines", "warnings", "age")


def op_name(number: int) -> str:
    return f"eid_1_{number:05d}_opAvoqBr"


def make_gold(path: Path, ops: int | Sequence[str]) -> None:
    """Gold of so many OPs, or of these: the tables that the service reads, with their columns."""
    names = [op_name(number) for number in range(ops)] if isinstance(ops, int) else list(ops)
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(path)) as gold:
        for table in ("state_rules", "priority_parts"):
            gold.execute(f"create table {table} as from read_csv('{SEEDS / table}.csv')")
        gold.execute(
            "create table ops as select unnest($1::varchar[]) as op_id,"
            " unnest(range(len($1::varchar[]))) as i",
            [names],
        )
        scores = ", ".join(f"(i % {n + 2}) / {n + 2} as {part}_score" for n, part in enumerate(_SCORES))
        gold.execute(
            f"create table work_queue as select op_id, (i % 97) / 97 as merit_score, {scores},"
            " 'waits' as reason, false as is_held_by_embargo, null::timestamp as embargo_end_date from ops"
        )
        gold.execute(_PROGRAMS)
        gold.execute(_SCANS)
        gold.execute("alter table ops rename to generated")


_PROGRAMS = """
create table observing_programs as select
    op_id, 'pid_1_' || (i % 7) as proposal_id, 'eid_1' as experiment_id, ['VBI', 'VISP'] as instruments,
    2 as dataset_count, timestamp '2024-04-17 20:25:26' + interval (i) hour as start_time,
    timestamp '2024-04-17 20:45:18' + interval (i) hour as end_time, true as is_complete,
    i % 3 > 0 as is_invertible, false as is_embargoed, null::timestamp as embargo_end_date,
    0.05e0 + (i % 10) / 100 as fried_parameter_median_m, null::varchar as waits_for,
    'recipes_complete' as completeness from ops;
create table op_criteria as select
    op_id, instrument, criterion, position, i % 3 > 0 as passed,
    case when i % 3 > 0 then 'pass' else 'fail' end as outcome, 0.9e0 as measured_value,
    null::varchar as measured_text, 0.75e0 as threshold, '0.75' as threshold_text, 'fraction' as unit,
    0.15e0 as margin, 'AAAAA' as worst_dataset_id, 0 as failing_dataset_count,
    'good frames make up 0.9 of all; needs 0.75' as explanation
from ops, (values ('VISP')) as instruments (instrument),
    (values ('health', 1), ('gos', 2), ('on_disk', 3)) as criteria (criterion, position);
create table op_verdicts as select
    op_id, 'VISP' as instrument, true as is_complete, i % 3 > 0 as is_invertible, 'r1' as rule_version,
    'h' as inputs_hash from ops;
create table op_qualification as select
    op_id, 'VISP' as instrument, true as is_supported, i % 3 > 0 as is_invertible,
    []::varchar[] as failed_criteria, []::varchar[] as warnings,
    []::varchar[] as warning_explanations from ops;
create table inversions as select
    'inv.' || lpad(i::varchar, 6, '0') as inversion_id, op_id, 'Published' as last_state, 'bob' as claimed_by,
    timestamp '2026-01-01 09:00:00' + interval (i) hour as claimed_at, timestamp '2026-02-01' as inverted_at,
    timestamp '2026-02-02' as published_at, ['Fe I (630.15 nm)'] as spectral_lines from ops;
create table datasets as select
    op_id, 'AAAAA' as dataset_id, 'L1-AAAAA' as product_id, 'VISP' as instrument,
    'id.1' as instrument_program_id, timestamp '2024-04-17 20:25:26' as start_time,
    timestamp '2024-04-17 20:45:18' as end_time, timestamp '2024-05-17 20:45:18' as create_date,
    630.0e0 as wavelength_min_nm, 631.0e0 as wavelength_max_nm, 100 as frame_count, 'IQUV' as stokes,
    ['Fe I (630.15 nm)'] as spectral_lines, false as lines_estimated, false as is_embargoed,
    null::timestamp as embargo_end_date, 'ACTIVE' as status,
    -500.0e0 as box_x1_arcsec, 100.0e0 as box_y1_arcsec, -420.0e0 as box_x2_arcsec, 160.0e0 as box_y2_arcsec,
    950.0e0 as solar_radius_arcsec, 0.02e0 as fried_parameter_min_m, 0.04e0 as fried_parameter_p25_m,
    0.05e0 + (i % 10) / 100 as fried_parameter_median_m, 0.16e0 as fried_parameter_p75_m,
    case when i % 3 = 0 then 28.2e0 else 0.2e0 end as fried_parameter_max_m,
    case when i % 2 = 1 then 'https://example.org/' || i || '.mp4' end as browse_movie_url from ops;
"""


# Two years of windows of five days each; in every year one failed and one came in part. The last reaches on.
_SCANS = """
create table scan_coverage as select
    'metadata_store' as source, '{}' as query, timestamp '2024-01-01' + interval (5 * n) day as window_start,
    if(n = 145, timestamp '2031-01-01', timestamp '2024-01-06' + interval (5 * n) day) as window_end,
    case n % 73 when 10 then 'FAILED' when 30 then 'SKIPPED_NO_DATA' else 'DOWNLOADED' end as status,
    100::bigint as records, 100::bigint as expected_records,
    case n % 73 when 20 then 87.5e0 when 10 then null else 100e0 end as availability_pct,
    2::bigint as attempts,
    0.5e0 as seconds, timestamp '2026-01-01 10:00:00' as finished_at,
    case when n % 73 = 10 then 'timeout' end as error_type,
    case when n % 73 = 10 then 'The store did not answer in time.' end as error_message
from range(146) as numbers (n);
create table dataset_versions as select
    op_id || '.' || n as dataset_id, 'scan-' || (n % 3) as job_id,
    timestamp '2026-01-01' + interval (n % 3) day as seen_at,
    case when n % 4 = 3 then 'changed' else 'new' end as change_type,
    case when n % 4 = 3 then ['bounding_box', 'health'] else []::varchar[] end as changed_fields
from ops, range(8) as numbers (n);
create table rejected_records as select
    'datasets' as table_name, 'R' || lpad(n::varchar, 5, '0') as record_id, 'frameCount is "x"' as reason,
    timestamp '2026-01-02' + interval (n) minute as rejected_at,
    case when n % 2 = 0 then timestamp '2026-02-02' end as last_accepted_at, '{}' as raw_json,
    'scan-1' as job_id, n::varchar as content_hash
from range(30) as numbers (n);
create table download_jobs as select
    'scan-' || n as job_id, 'metadata_store' as job_name, 'SUCCESS' as status,
    timestamp '2026-01-01' + interval (n) day as submitted_at, 12.5e0 as seconds, 40::bigint as requests,
    200::bigint as records
from range(4) as numbers (n);
"""


def bring(ledger: Ledger, op_id: str, state: State, scientist: str = "bob") -> None:
    """Bring a new OP to a state."""
    for step in WAY[: WAY.index(state) + 1]:
        details: dict[str, Any] = {}
        if step not in (State.DISCOVERED, State.INVERTIBLE):
            details = dict(PACKAGE)
        if step in (State.WORKING, State.INVERTED):
            details |= {"claimed_by": scientist}
        ledger.append(op_id, step, actor="t", cause="t", inputs_hash="h", details=details)


@dataclass
class World:
    """The service as it answers on loopback, and what lies behind it."""

    url: str
    settings: Settings
    ledger: Ledger
    secrets: dict[str, str] = field(default_factory=dict)

    def token(self, name: str, role: Role) -> str:
        if name not in self.secrets:
            self.secrets[name] = self.ledger.add_token(name, role, actor="t")[1]
        return self.secrets[name]

    def client(self, name: str, role: Role = "scientist") -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token(name, role)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120)


@contextmanager
def running(settings: Settings, limits: Limits | None = None) -> Iterator[World]:
    """The service over a data folder."""
    with Serving(settings) as backend:
        app = service_app(backend, limits or Limits(per_second=None))
        with RunningService(app) as service:
            yield World(service.url, settings, backend.ledger)
