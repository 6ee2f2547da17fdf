"""The rules of invertibility once more, in plain Python, record by record, as the observatory states them.

What the warehouse decides in SQL over columns is held against this. It reads the store's own JSON records and
shares neither code nor numbers with the product: thresholds and formulas are written down once more.
"""

from __future__ import annotations

import hashlib
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

Record = Mapping[str, Any]

QUIET = timedelta(days=7)
LINES = (("Fe I (630.15 nm)", 630.15012), ("Ca II (854.21 nm)", 854.2091), ("Na I D2 (589.0 nm)", 588.95095))
WINDOWS = (("fe_i_630", 630.3, 0.5), ("ca_ii_854", 854.2, 1.0), ("na_i_d", 589.3, 1.0))
CRITERIA = ("instrument", "one_program", "on_disk", "fe_i_630", "stokes", "health", "gos", "adaptive_optics")
NOT_OPEN = ("opening", "closed", "closing", "undefined")

PASS, FAIL, NOT_RECORDED = "pass", "fail", "not_recorded"


@dataclass(frozen=True)
class Judgement:
    """One criterion of one dataset, or of an OP's datasets together."""

    outcome: str
    value: float | None = None
    threshold: float | None = None
    # How far from failing; none for garbage, which is worse than any number.
    reserve: float | None = None
    worst: str | None = None
    failing: int = 0


@dataclass
class Qualification:
    """One instrument of one OP."""

    criteria: dict[str, Judgement]
    warnings: set[str] = field(default_factory=set)
    inputs_hash: str = ""

    @property
    def failed(self) -> list[str]:
        return [name for name in CRITERIA if name in self.criteria and self.criteria[name].outcome != PASS]


@dataclass
class Program:
    """What is said of one OP."""

    by_instrument: dict[str, Qualification]
    completeness: str
    fried_parameter: float | None
    seeing: str | None

    @property
    def is_invertible(self) -> bool:
        return any(not q.failed for q in self.by_instrument.values())


def finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(float(value)) else None


def text(value: str | None) -> str | None:
    return value if value is not None and value.strip() else None


def moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value).replace(tzinfo=None) if value else None


def created(record: Record) -> datetime:
    found = moment(record["createDate"])
    assert found is not None
    return found


def product_of(record: Record) -> str:
    """The product; where it is not named, instrument program and shortest wavelength to 0.1 nm."""
    program, shortest = text(record.get("instrumentProgramExecutionId")), finite(record.get("wavelengthMin"))
    if product := text(record.get("productId")):
        return product
    if program is None or shortest is None:
        return str(record["datasetId"])
    return f"{program}:{math.floor(shortest * 10 + 0.5) / 10}"


def current(records: Iterable[Record]) -> list[Record]:
    """The newest ACTIVE dataset of each product; a record without a status counts as ACTIVE."""
    newest: dict[str, Record] = {}
    for record in records:
        if (text(record.get("status")) or "ACTIVE").strip().upper() != "ACTIVE":
            continue
        product = product_of(record)
        other = newest.get(product)
        # Of two made at one moment the greater id: the rules do not say, but it must be the same each time.
        if other is None or (created(other), other["datasetId"]) < (created(record), record["datasetId"]):
            newest[product] = record
    return list(newest.values())


def lines_of(record: Record) -> tuple[list[str], bool, bool]:
    """Lines of a dataset, whether they are an estimate, and whether anything is known of them."""
    recorded = [line for line in record.get("spectralLines") or [] if line is not None and line.strip()]
    if recorded:
        return recorded, False, True
    low, high = finite(record.get("wavelengthMin")), finite(record.get("wavelengthMax"))
    if low is None or high is None:
        return [], False, False
    for name, wavelength in LINES:
        if low - 0.5 <= wavelength <= high + 0.5:
            return [name], True, True
    return [], False, True


def ion_of(line: str) -> str:
    """`Fe I` of `Fe I (630.15 nm)`, `Na I` of `Na I D2 (589.0 nm)`."""
    return " ".join(line.split("(")[0].split()[:2])


def is_wanted(name: str, line: str) -> bool:
    ion = ion_of(line)
    if name == "fe_i_630":
        return ion == "Fe I"
    if name == "ca_ii_854":
        return ion == "Ca II" and "854" in line
    return ion == "Na I" and "Na I D" in " ".join(line.split())


def solar_radius(day: datetime) -> float:
    n = day.timetuple().tm_yday
    distance = 149_600_000 * (1 - 0.0167 * math.cos(2 * math.pi * (n - 3) / 365))
    return math.atan(696_340 / distance) * 206_265


def corners(box: str) -> list[tuple[float, float]] | None:
    """All four corners of `(x1,y1),(x2,y2)`; none where it is garbage."""
    numbers = re.fullmatch(r"\s*\(([^(),]*),([^(),]*)\)\s*,\s*\(([^(),]*),([^(),]*)\)\s*", box)
    try:
        x1, y1, x2, y2 = (float(number) for number in (numbers.groups() if numbers else ("",) * 4))
    except ValueError:
        return None
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        return None
    return [(x, y) for x in (x1, x2) for y in (y1, y2)]


def on_disk(record: Record) -> Judgement:
    box, start = text(record.get("boundingBox")), moment(record.get("startTime"))
    radius = solar_radius(start) if start else None
    if box is None or radius is None:
        return Judgement(NOT_RECORDED, threshold=radius)
    reaches = [math.sqrt(x * x + y * y) for x, y in corners(box) or []]
    if not reaches or not math.isfinite(max(reaches)):
        return Judgement(FAIL, threshold=radius)
    inside = all(reach < radius for reach in reaches)
    return Judgement(PASS if inside else FAIL, max(reaches), radius, radius - max(reaches))


def stokes(record: Record) -> Judgement:
    recorded = text(record.get("stokesParameters"))
    if recorded is None:
        return Judgement(NOT_RECORDED)
    return Judgement(PASS if recorded == "IQUV" else FAIL, reserve=0)


def _share(count: int | None, record: Record, threshold: float, *, recorded: bool) -> Judgement:
    frames = record.get("frameCount")
    if not recorded or frames is None:
        return Judgement(NOT_RECORDED, threshold=threshold)
    if frames <= 0:
        return Judgement(FAIL, threshold=threshold)
    share = (count or 0) / frames
    return Judgement(PASS if share >= threshold else FAIL, share, threshold, share)


def health(record: Record) -> Judgement:
    counts = record.get("health")
    return _share((counts or {}).get("good"), record, 0.75, recorded=counts is not None)


def gos(record: Record) -> Judgement:
    counts = record.get("gosStatus")
    judged = _share((counts or {}).get("open"), record, 1.0, recorded=counts is not None)
    others = sum((counts or {}).get(name) or 0 for name in NOT_OPEN)
    if judged.value is None:
        return judged
    outcome = judged.outcome if others == 0 else FAIL
    return Judgement(outcome, judged.value, 1.0, judged.value - others)


def adaptive_optics(record: Record) -> Judgement:
    locked = record.get("aoLocked")
    return _share(locked, record, 0.75, recorded=locked is not None)


EACH = {
    "on_disk": on_disk,
    "stokes": stokes,
    "health": health,
    "gos": gos,
    "adaptive_optics": adaptive_optics,
}


def worst_of(judged: Mapping[str, Judgement]) -> Judgement:
    """The worst dataset speaks for all; a rule must hold in every one."""
    order = (FAIL, NOT_RECORDED, PASS)

    def badness(dataset_id: str) -> tuple[int, bool, float, str]:
        of = judged[dataset_id]
        return order.index(of.outcome), of.reserve is not None, of.reserve or 0.0, dataset_id

    worst = min(judged, key=badness)
    of = judged[worst]
    failing = sum(other.outcome != PASS for other in judged.values())
    return Judgement(of.outcome, of.value, of.threshold, of.reserve, worst, failing)


def _one_program(records: list[Record]) -> Judgement:
    programs = [text(record.get("instrumentProgramExecutionId")) for record in records]
    count = len({program for program in programs if program})
    outcome = FAIL if count > 1 else NOT_RECORDED if None in programs else PASS
    return Judgement(outcome, float(count), 1.0)


def _fe_i(records: list[Record]) -> Judgement:
    found = [lines_of(record) for record in records]
    iron = {line for lines, _, _ in found for line in lines if is_wanted("fe_i_630", line)}
    outcome = PASS if iron else FAIL if all(known for _, _, known in found) else NOT_RECORDED
    return Judgement(outcome, float(len(iron)), 1.0)


def _warnings(records: list[Record]) -> set[str]:
    found = [lines_of(record) for record in records]
    lines = {line for names, _, _ in found for line in names}
    out = {"estimated_line"} if any(estimated for _, estimated, _ in found) else set()
    for name in ("ca_ii_854", "na_i_d"):
        if not any(is_wanted(name, line) for line in lines):
            out.add(f"missing_{name}")
    for name, centre, margin in WINDOWS:
        ends = [finite(record.get(key)) for record in records for key in ("wavelengthMin", "wavelengthMax")]
        if any(end is not None and abs(end - centre) < margin for end in ends):
            out.add(f"narrow_window_{name}")
    return out


def qualify(instrument: str, records: list[Record]) -> Qualification:
    """What is said of the current datasets of one instrument in one OP."""
    pairs = sorted((str(r["datasetId"]), r.get("frameCount")) for r in records)
    listed = ",".join(f"{dataset_id}:{'' if count is None else count}" for dataset_id, count in pairs)
    inputs_hash = hashlib.sha256(listed.encode()).hexdigest()
    if instrument != "VISP":
        outcome = NOT_RECORDED if instrument == "unknown" else FAIL
        return Qualification({"instrument": Judgement(outcome)}, inputs_hash=inputs_hash)
    criteria = {
        "instrument": Judgement(PASS),
        "one_program": _one_program(records),
        "fe_i_630": _fe_i(records),
    }
    for name, judge in EACH.items():
        criteria[name] = worst_of({str(record["datasetId"]): judge(record) for record in records})
    return Qualification(criteria, _warnings(records), inputs_hash)


def _completeness(visp: list[Record], candidate: Record | None, scanned_at: datetime) -> str:
    if not visp:
        return "no_supported_instrument"
    planned = (candidate or {}).get("plannedRecipeCount") or 0
    if planned > 0 and ((candidate or {}).get("completeRecipeInstanceCount") or 0) >= planned:
        return "recipes_complete"
    quiet = max(map(created, visp)) <= scanned_at - QUIET
    return "quiet" if quiet else "arriving"


def _seeing(records: list[Record]) -> tuple[float | None, str | None]:
    medians = [finite((record.get("friedParameter") or {}).get("med")) for record in records]
    known = [value for value in medians if value is not None]
    if not known:
        return None, None
    median = statistics.median(known)
    return median, "good" if median >= 0.07 else "fair" if median >= 0.05 else "poor"


def judge(
    records: Iterable[Record], candidates: Iterable[Record], scanned_at: datetime
) -> dict[str, Program]:
    """What is said of every OP that has current datasets.

    Parameters
    ----------
    records
        Each dataset once, as it was last seen.
    candidates
        Each OP's processing candidate as it was last seen.
    scanned_at
        The moment of the last scan; readiness is judged as of it.
    """
    plans = {candidate["observingProgramExecutionId"]: candidate for candidate in candidates}
    by_op: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in current(records):
        if op_id := text(record.get("observingProgramExecutionId")):
            by_op[op_id][text(record.get("instrumentName")) or "unknown"].append(record)
    out = {}
    for op_id, instruments in by_op.items():
        visp = instruments.get("VISP", [])
        used = visp or [record for records in instruments.values() for record in records]
        out[op_id] = Program(
            {name: qualify(name, records) for name, records in instruments.items()},
            _completeness(visp, plans.get(op_id), scanned_at),
            *_seeing(used),
        )
    return out
