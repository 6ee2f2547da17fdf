"""Generated records: their shape, their quirks in the proportions of the facts, the same every time."""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from dagster_l2.store.fields import DATASETS, EXPERIMENTS, PROCESSING_CANDIDATES
from dagster_l2.store.parse import parse_records
from dagster_l2.store.server import DEMO_NOW, RecordSet, generate

NOW = datetime(2025, 7, 1, 12, tzinfo=UTC)
OPS = 1500


@pytest.fixture(scope="module")
def records() -> RecordSet:
    return generate(OPS, seed=11, now=NOW)


@pytest.fixture(scope="module")
def programs(records: RecordSet) -> dict[str, list[dict[str, Any]]]:
    out: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in records.datasets:
        out[row["observingProgramExecutionId"]].append(row)
    return out


def share(matches: Any, of: Any) -> float:
    items = list(of)
    return sum(map(bool, map(matches, items))) / len(items)


def visp(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["instrumentName"] == "VISP"]


def current(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    newest: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: str(row["createDate"])):
        if row["status"] == "ACTIVE":
            newest[row["productId"]] = row
    return list(newest.values())


def test_the_same_seed_gives_the_same_records(records: RecordSet) -> None:
    assert generate(40, seed=5).lists == generate(40, seed=5).lists
    assert generate(40, seed=5).lists != generate(40, seed=6).lists
    assert records.datasets[: len(generate(30, 11, NOW).datasets)] == generate(30, 11, NOW).datasets
    assert generate(0, seed=1).datasets == []
    latest = max(row["createDate"] for row in generate(40, seed=5).datasets)
    assert DEMO_NOW - timedelta(days=9) < datetime.fromisoformat(latest).replace(tzinfo=UTC) < DEMO_NOW


def test_every_record_parses_and_has_every_field(records: RecordSet) -> None:
    for record_type, rows in (
        (DATASETS, records.datasets),
        (EXPERIMENTS, records.experiments),
        (PROCESSING_CANDIDATES, records.processing_candidates),
    ):
        assert set(rows[0]) == {field.name for field in record_type.fields}
        frame, rejected = parse_records(record_type, rows)
        assert rejected == []
        assert len(frame) == len(rows)


def test_ids_look_like_the_real_ones(records: RecordSet, programs: dict[str, list[dict[str, Any]]]) -> None:
    row = records.datasets[0]
    for name, pattern in {
        "datasetId": r"[A-Z]{5}",
        "observingProgramExecutionId": r"eid_\d+_\d+_op[A-Za-z]{6}_R\d{3}\.\d{5}\.\d{8}",
        "primaryProposalId": r"pid_\d+_\d+",
        "primaryExperimentId": r"eid_\d+_\d+",
        "instrumentProgramExecutionId": r"id\.\d+\.\d+",
    }.items():
        assert re.fullmatch(pattern, row[name]), name
    assert len({row["datasetId"] for row in records.datasets}) == len(records.datasets)
    assert len({row["datasetInventoryId"] for row in records.datasets}) == len(records.datasets)
    for name in ("observingProgramExecutionId", "instrumentName"):
        owners = defaultdict(set)
        for row in records.datasets:
            owners[row["instrumentProgramExecutionId"]].add(row[name])
        assert max(map(len, owners.values())) == 1
    for rows in programs.values():
        assert len({row["instrumentProgramExecutionId"] for row in visp(rows)}) <= 1


def test_sizes_and_instruments(programs: dict[str, list[dict[str, Any]]]) -> None:
    assert len(programs) == OPS
    sizes = [len(rows) for rows in programs.values()]
    assert (min(sizes), max(sizes), statistics.median(sizes)) == (3, 13, 8)
    assert 0.85 < share(visp, programs.values()) < 0.95
    instruments = Counter(row["instrumentName"] for rows in programs.values() for row in rows)
    assert set(instruments) == {"VISP", "VBI", "CRYO-NIRSP"}
    assert instruments["VBI"] > instruments["VISP"] > instruments["CRYO-NIRSP"] > 0


def _is_invertible(rows: list[dict[str, Any]]) -> bool:
    """The rules of the facts, in a rough form that suffices for what the generator makes."""
    arms = visp(current(rows))

    def holds(row: dict[str, Any]) -> bool:
        box = re.findall(r"-?\d+\.?\d*", row["boundingBox"] or "")
        corners = [float(number) for number in box]
        frames = row["frameCount"]
        return (
            len(corners) == 4
            and all((x**2 + y**2) ** 0.5 < 944 for x in corners[::2] for y in corners[1::2])
            and row["stokesParameters"] == "IQUV"
            and frames > 0
            and ((row["health"] or {}).get("good") or 0) >= 0.75 * frames
            and ((row["gosStatus"] or {}).get("open") or 0) >= frames
            and (row["aoLocked"] or 0) >= 0.75 * frames
        )

    iron = any(row["wavelengthMax"] > 629.6 and row["wavelengthMin"] < 630.7 for row in arms)
    return bool(arms) and iron and all(map(holds, arms))


def test_three_in_five_visp_programs_can_be_inverted(programs: dict[str, list[dict[str, Any]]]) -> None:
    assert 0.55 < share(_is_invertible, [rows for rows in programs.values() if visp(rows)]) < 0.66


def test_quirks_of_the_facts(records: RecordSet) -> None:
    rows = records.datasets
    assert 0.35 < share(lambda row: row["spectralLines"] is None, rows) < 0.45
    assert all(type(row["wavelengthMin"]) is int for row in rows if row["instrumentName"] == "VBI")
    assert all(type(row["wavelengthMin"]) is float for row in visp(rows))
    counts = [
        count for row in rows for name in ("health", "gosStatus") for count in (row[name] or {}).values()
    ]
    assert 0 not in counts
    assert None in counts
    for name in ("health", "gosStatus", "aoLocked", "friedParameter", "boundingBox", "updateDate"):
        assert 0 < share(lambda row, name=name: row[name] is None, rows) < 0.3, name
    boxes = [row["boundingBox"] or "" for row in rows]
    assert 0 < share(lambda box: "NaN" in box, boxes) < 0.1
    assert 0 < share(lambda box: "(30" in box and len(box) > 40, boxes) < 0.1
    open_frames = [((row["gosStatus"] or {}).get("open") or 0, row["frameCount"]) for row in rows]
    assert 0 < share(lambda pair: pair[0] > pair[1], open_frames) < 0.1
    assert max(row["frameCount"] for row in rows) == 77_694
    embargoes = Counter((row["isEmbargoed"], row["embargoEndDate"] is not None) for row in rows)
    assert set(embargoes) == {(True, True), (True, False), (False, True), (False, False)}
    assert {row["bucket"] for row in rows if row["isEmbargoed"]} == {"data", "public"}
    assert {len(row["headerDataUnitCreationDate"]) for row in rows} == {19}
    assert 26 in {len(row["createDate"]) for row in rows}


def test_reprocessed_datasets(programs: dict[str, list[dict[str, Any]]]) -> None:
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for rows in programs.values():
        versions = defaultdict(list)
        for row in rows:
            versions[row["productId"]].append(row)
        for group in versions.values():
            group.sort(key=lambda row: str(row["createDate"]))
            pairs += pairwise(group)
    assert len(pairs) > OPS
    for older, newer in pairs:
        assert older["createDate"] < newer["createDate"]
        moved = datetime.fromisoformat(newer["startTime"]) - datetime.fromisoformat(older["startTime"])
        assert timedelta(seconds=1) < abs(moved) < timedelta(minutes=1)
        assert older["wavelengthMin"] == newer["wavelengthMin"]
    statuses = Counter(older["status"] for older, _ in pairs)
    assert set(statuses) == {"ACTIVE", "DEPRECATED", "REMOVED"}
    assert any(newer["status"] == "DEPRECATED" for _, newer in pairs)


def test_arrival(records: RecordSet, programs: dict[str, list[dict[str, Any]]]) -> None:
    now = NOW.replace(tzinfo=None).isoformat()
    week = (NOW - timedelta(days=7)).replace(tzinfo=None).isoformat()
    moments = [row[name] for row in records.datasets for name in ("createDate", "updateDate", "endTime")]
    assert max(moment for moment in moments if moment) < now
    last = {op: max(row["createDate"] for row in rows) for op, rows in programs.items()}
    arriving = [op for op, moment in last.items() if moment > week]
    assert 0.04 < len(arriving) / OPS < 0.12
    assert all(
        row["startTime"] < row["endTime"] < row["createDate"] <= (row["updateDate"] or now)
        for row in records.datasets
    )

    def spread(rows: list[dict[str, Any]]) -> float:
        created = [datetime.fromisoformat(row["createDate"]) for row in rows]
        return (max(created) - min(created)).days

    assert 150 < statistics.median(map(spread, programs.values())) < 400


def test_candidates_and_experiments(records: RecordSet) -> None:
    candidates = records.processing_candidates
    assert 0.85 < len(candidates) / OPS < 0.95
    assert 0.1 < share(lambda row: row["plannedRecipeCount"] is None, candidates) < 0.3
    planned = [row for row in candidates if row["plannedRecipeCount"] is not None]
    complete = share(lambda row: row["completeRecipeInstanceCount"] == row["plannedRecipeCount"], planned)
    assert 0.4 < complete < 0.8
    described = {row["experimentId"]: row["experimentDescription"] for row in records.experiments}
    assert {row["primaryExperimentId"] for row in records.datasets} == set(described)
    texts = [text for text in described.values() if text]
    assert len(texts) < len(described)
    assert 0.05 < share(lambda text: "\n" in text, texts) < 0.3
    assert 0 < share(lambda text: "\\n" in text, texts) < 0.2


def test_history_holds_the_embargoes_that_ended(records: RecordSet) -> None:
    now = {row["datasetId"]: row for row in records.datasets}
    assert records.history
    for row in records.history:
        assert {**row, "isEmbargoed": False} == now[row["datasetId"]]
        assert row["isEmbargoed"]
