"""Generated records made odd: what the store's records hold now and then, and worse, at random from a seed.

The local store's generator makes records shaped like the real ones; here each third of them gets one to three
oddities that a rule has to stand.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

Row = dict[str, Any]
Oddity = Callable[[random.Random, Row], Row]

BOXES: tuple[str | None, ...] = (
    None,
    "",
    " ",
    "(NaN,NaN),(NaN,NaN)",
    "(NaN,1),(2,3)",
    "(1,2),(3,NaN)",
    "(302415.17,298120.4),(302300.02,297999.91)",
    "(1e200,0),(0,0)",
    "(inf,0),(0,-inf)",
    "somewhere",
    "(1,2),(3)",
    "(1,2),(3,4); drop table x",
    "(0,700),(700,0)",
    " ( 1e2 , -2.5 ),( +3, 4 ) ",
    "(-57.56,-901.62),(-61.91,-963.33)",
    "(59.93,-872.63),(-56.05,-991.35)",
    "(-817.11,255.01),(-870.28,179.45)",
)
DAYS = ("2024-01-03", "2023-07-04", "2024-12-31", "2024-02-29", "2023-10-03", "2023-12-31", "2024-01-01")
TIMES = ("00:00:00", "23:59:59.999999", "12:30:00")
LINES: tuple[list[str] | None, ...] = (
    None,
    [],
    [" ", ""],
    ["Fe I (630.15 nm)"],
    ["Fe I (1565.28 nm)"],
    ["Fe I"],
    ["Fe I(630.25 nm)"],
    ["Fe II (492.39 nm)", "Fe XIII dx (1074.7 nm)"],
    ["Ca II (854.21 nm)"],
    ["Ca II (866.21 nm)"],
    ["Ca II H (396.85 nm)", "H alpha (656.28 nm)"],
    ["Na I D1 (589.59 nm)"],
    ["Mg I b1 (517.27 nm)", "Fe I (630.15 nm)", "Fe I (630.15 nm)"],
)
RANGES: tuple[tuple[Any, Any], ...] = (
    (630, 631),
    (629, 630),
    (630.239, 634.38),
    (629.8, 630.8),
    (854.201, 856.8),
    (853, 855),
    (588, 590),
    (588.3, 590.3),
    (433.0, 434.0),
    (628.0, 629.0),
    (629, 629.65012),
    (500, 900),
    (631, 629),
    (None, 631.0),
    (629.4, None),
    (None, None),
    (math.nan, math.nan),
    (630, math.nan),
)


def _ranges(rng: random.Random, _row: Row) -> Row:
    low, high = rng.choice(RANGES)
    return {"wavelengthMin": low, "wavelengthMax": high}


def _frames(rng: random.Random, row: Row) -> Row:
    """A frame count that dropped, is zero or unknown, or sits just beside a threshold of the counts."""
    frames = row["frameCount"] or 1
    change = rng.choice(("dropped", "grown", "zero", "none", "edge"))
    if change != "edge":
        counts = {"dropped": max(1, frames * 3 // 4), "grown": frames + 1, "zero": 0, "none": None}
        return {"frameCount": counts[change]}
    edge = 3 * (frames // 4) + rng.choice((-1, 0, 1))
    good = {"good": edge, "bad": None, "ill": None, "unknown": None}
    return {"frameCount": 4 * (frames // 4), "health": good, "aoLocked": rng.choice((edge, None))}


def _gos(rng: random.Random, row: Row) -> Row:
    names = ("open", "opening", "closed", "closing", "undefined")
    frames = row["frameCount"]
    counts = {name: rng.choice((None, None, 0, 1)) for name in names}
    counts["open"] = rng.choice((None, frames, (frames or 0) + 5, (frames or 0) - 1))
    return {"gosStatus": rng.choice((None, counts, counts))}


def _health(rng: random.Random, row: Row) -> Row:
    good = rng.choice((None, 0, 1, row["frameCount"]))
    return {"health": rng.choice((None, {"good": good, "bad": 1, "ill": None, "unknown": None}))}


def _start(rng: random.Random, _row: Row) -> Row:
    return {"startTime": rng.choice((None, f"{rng.choice(DAYS)}T{rng.choice(TIMES)}"))}


def _fried(rng: random.Random, _row: Row) -> Row:
    median = rng.choice((0.07, 0.05, 0.049999, 0.0, math.nan, None))
    return {"friedParameter": rng.choice((None, {"min": 0.0, "med": median, "max": 1.0}))}


def _one(name: str, *values: Any) -> Oddity:
    return lambda rng, _row: {name: rng.choice(values)}


ODDITIES: tuple[Oddity, ...] = (
    _one("boundingBox", *BOXES),
    _one("boundingBox", *BOXES),
    _one("spectralLines", *LINES),
    _one("spectralLines", *LINES),
    _one("stokesParameters", None, "", " ", "I", "IQU", "VUQI", "iquv", "IQUV ", "IQUV"),
    _one("productId", None, None, "", " "),
    _one("status", None, "", "DEPRECATED", "REMOVED", "deprecated", " Active ", "ACTIVE"),
    _one("instrumentName", None, "", "VISP", "VISP", "VBI", "CRYO-NIRSP", "DL-NIRSP"),
    _one("instrumentProgramExecutionId", None, "", "id.1.1"),
    _one("observingProgramExecutionId", None, "", "  "),
    _one("aoLocked", None, 0, 1),
    _one("isEmbargoed", None, True, False),
    _one("updateDate", None, "2030-01-01T00:00:00"),
    _ranges,
    _ranges,
    _frames,
    _frames,
    _gos,
    _health,
    _start,
    _fried,
)


def make_odd(rows: Sequence[Row], seed: int, share: float = 1 / 3) -> list[Row]:
    """The records, some of them odd, and some made again: at the same moment, later, or before."""
    rng = random.Random(seed)
    out = []
    for index, row in enumerate(rows):
        changed = dict(row)
        if rng.random() < share:
            for oddity in rng.sample(ODDITIES, rng.randint(1, 3)):
                changed.update(oddity(rng, changed))
        out.append(changed)
        if rng.random() < 0.04:
            out.append(_made_again(rng, changed, f"again_{seed}_{index}"))
    return out


def _made_again(rng: random.Random, row: Row, dataset_id: str) -> Row:
    """Another dataset of the product, or of about its wavelength where the product is not named."""
    moment = datetime.fromisoformat(row["createDate"])
    moment += rng.choice((timedelta(0), timedelta(0), timedelta(seconds=1), timedelta(days=-1)))
    again = {**row, "datasetId": dataset_id, "createDate": moment.isoformat()}
    again["status"] = rng.choice(("ACTIVE", "ACTIVE", "DEPRECATED", "REMOVED"))
    if row["productId"] and rng.random() < 0.3:
        again["productId"] = rng.choice((None, ""))
    if isinstance(row["wavelengthMin"], float) and rng.random() < 0.5:
        again["wavelengthMin"] = row["wavelengthMin"] + rng.choice((0.01, -0.01, 0.05, 0.1))
    if row["frameCount"]:
        again["frameCount"] = row["frameCount"] - 1
    return again
