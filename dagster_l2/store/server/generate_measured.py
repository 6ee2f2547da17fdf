"""What an instrument measured, made up: the fields that decide whether an OP can be inverted.

Which product has which defect is decided in ``generate`` and ``generate_datasets``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Literal

Defect = Literal[
    "stokes",
    "no_iron",
    "off_disk",
    "garbage_box",
    "no_box",
    "low_health",
    "no_health",
    "closed",
    "no_gos",
    "low_ao",
    "no_ao",
    "no_frames",
]

_GARBAGE_BOXES = (
    "(NaN,NaN),(NaN,NaN)",
    "(302415.17,298120.4),(302300.02,297999.91)",
    "(-317.2,NaN),(-417.2,NaN)",
)


_FRAMES = (490, 1345, 1960, 3920, 9800, 24500)
_SMALL_FRAMES = (20, 24, 24, 32, 40, 48)


def measure(
    rng: random.Random, is_visp: bool, defects: Sequence[Defect], *, small_frames: bool = False
) -> dict[str, Any]:
    """What the qualification reads of one product: box, Stokes parameters, frames and their counts.

    Parameters
    ----------
    rng
        Where chance comes from.
    is_visp
        Other instruments measure intensity only, and their garbage is no defect of the OP.
    defects
        What is wrong with it; nothing else is, of a ViSP product.
    small_frames
        See `generate`.
    """
    frames = rng.choice(_SMALL_FRAMES if small_frames else _FRAMES) if is_visp else rng.randint(20, 1800)
    if is_visp and rng.random() < 0.01 and not small_frames:
        frames = 77_694
    frames = 0 if "no_frames" in defects else frames
    stokes: str | None = "IQUV" if is_visp else "I"
    if "stokes" in defects:
        stokes = "I" if rng.random() < 0.9 else None
    out: dict[str, Any] = {
        "boundingBox": _box(rng, is_visp, defects),
        "stokesParameters": stokes,
        "hasAllStokes": None if stokes is None else stokes == "IQUV",
        "frameCount": frames,
        "originalFrameCount": frames,
        "health": _health(rng, frames, is_visp, defects),
        "gosStatus": _gos(rng, frames, is_visp, defects),
        "aoLocked": _locked(rng, frames, is_visp, defects),
    }
    if is_visp and not defects and rng.random() < 0.06:
        # Frames withdrawn after cataloguing: the counts still are those of the original frames.
        out["frameCount"] = math.ceil(frames * 0.97)
    return out


def _box(rng: random.Random, is_visp: bool, defects: Sequence[Defect]) -> str | None:
    """Corners in arcsec from the sun's centre, upper right first."""
    if "no_box" in defects:
        return None
    if "garbage_box" in defects or (not is_visp and rng.random() < 0.03):
        return rng.choice(_GARBAGE_BOXES)
    # Centres out to 800 arcsec: with 80 arcsec more, still inside the smallest apparent radius of 944.
    distance = (960 if "off_disk" in defects else 800) * (1 if "off_disk" in defects else rng.random() ** 0.5)
    angle = 2 * math.pi * rng.random()
    x, y = distance * math.cos(angle), distance * math.sin(angle)
    width, height = (20 + 80 * rng.random()) / 2, 35 + 10 * rng.random()
    return f"({x + width:.2f},{y + height:.2f}),({x - width:.2f},{y - height:.2f})"


def _health(
    rng: random.Random, frames: int, is_visp: bool, defects: Sequence[Defect]
) -> dict[str, int | None] | None:
    if "no_health" in defects or (not is_visp and rng.random() < 0.03):
        return None
    share = 0.3 + 0.4 * rng.random() if "low_health" in defects else 0.78 + 0.4 * rng.random()
    good = min(frames, math.ceil(frames * share))
    ill = min(2, frames - good)
    return {"bad": frames - good - ill or None, "ill": ill or None, "good": good or None, "unknown": None}


def _gos(
    rng: random.Random, frames: int, is_visp: bool, defects: Sequence[Defect]
) -> dict[str, int | None] | None:
    if "no_gos" in defects or (not is_visp and rng.random() < 0.03):
        return None
    is_closing = "closed" in defects or (not is_visp and rng.random() < 0.05)
    closed = max(1, frames // 20) if is_closing and frames else 0
    return {
        "open": frames - closed or None,
        "closed": closed or None,
        "closing": None,
        "opening": None,
        "undefined": None,
    }


def _locked(rng: random.Random, frames: int, is_visp: bool, defects: Sequence[Defect]) -> int | None:
    if "no_ao" in defects or (not is_visp and rng.random() < 0.03):
        return None
    share = 0.2 + 0.5 * rng.random() if "low_ao" in defects else 0.78 + 0.3 * rng.random()
    return min(frames, math.ceil(frames * share))
