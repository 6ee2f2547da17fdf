"""From a dataset's record to its frames: how many, when, where on the sun, and what their headers say.

The pixels and files are made in ``frame_maker``; nothing here is slow or by chance.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dagster_l2.store.server.records import Row

MOST_FRAMES = 400
"""A dataset with more is too large to be made here; the store lists none for it."""

FRAME_VOLUME_MIB = 0.04
"""What one small frame takes, about."""

_STOKES = "IQUV"
_MISSING = ("LOST", "REMOVED")
_NANOMETRE = -9  # WAVEUNIT: the power of ten of the unit
_LINE_KEYS = ("SPECLN01", "SPECLN02", "SPECLN03")  # as many as the simulator's headers have room for


def has_frames(record: Row) -> bool:
    """Whether frames can be made that agree with a record: ViSP, few, with time, place and wavelengths."""
    try:
        plan = frame_plan(record)
    except (KeyError, TypeError, ValueError):
        return False
    return plan.count == record["originalFrameCount"] and 0 < plan.count <= MOST_FRAMES


@dataclass(frozen=True)
class FramePlan:
    """The frames of one dataset: Stokes parameters one after the other, each over all slit positions.

    Parameters
    ----------
    start, end
        First exposure's begin and last one's end, UTC without a zone.
    box
        Lowest x and y, highest x and y in arcsec from the sun's centre; centres of the outermost pixels.
    """

    record: Row
    dataset_id: str
    op_id: str
    stokes: str
    steps: int
    kept: int
    start: datetime
    end: datetime
    exposure_ms: float
    wavelengths_nm: tuple[float, float]
    box: tuple[float, float, float, float]

    @property
    def count(self) -> int:
        """Frames there ever were."""
        return self.steps * len(self.stokes)

    @property
    def width(self) -> float:
        """Across the slit, in arcsec."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        """Along the slit, in arcsec."""
        return self.box[3] - self.box[1]

    @property
    def centre(self) -> tuple[float, float]:
        """In arcsec from the sun's centre."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def cadence_s(self) -> float:
        """Seconds from one slit position to the next."""
        span = (self.end - self.start).total_seconds() - self.exposure_ms / 1000
        return span / max(1, self.steps - 1)

    @property
    def header_created(self) -> str:
        """When the headers were written."""
        return str(self.record["headerDataUnitCreationDate"])

    @property
    def fingerprint(self) -> str:
        """Changes with whatever the frames depend on; the last part counts this module's own changes."""
        text = json.dumps([self.record, 1], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def begin(self, step: int) -> datetime:
        """When a slit position was taken."""
        last = self.end - timedelta(milliseconds=self.exposure_ms)
        return last if step == self.steps - 1 else self.start + step * timedelta(seconds=self.cadence_s)

    def is_kept(self, number: int) -> bool:
        """Whether frame ``number`` (from 0) still is there; withdrawn are the last ones."""
        return number < self.kept

    def status(self, number: int) -> str:
        """Status of a frame in the store."""
        return "AVAILABLE" if self.is_kept(number) else _MISSING[(number - self.kept) % len(_MISSING)]

    def file_name(self, number: int) -> str:
        """The name of a frame's file, as the observatory writes it."""
        stokes, step = divmod(number, self.steps)
        moment = self.begin(step)
        picometres = round(sum(self.wavelengths_nm) / 2 * 1000)
        stamp = f"{moment:%Y_%m_%dT%H_%M_%S}_{moment.microsecond // 1000:03d}"
        return f"VISP_{stamp}_{picometres:08d}_{self.stokes[stokes]}_{self.dataset_id}_L1.fits"

    def object_key(self, number: int) -> str:
        """Where a frame lies in its bucket."""
        return f"{self.record['primaryProposalId']}/{self.dataset_id}/{self.file_name(number)}"

    def constants(self) -> dict[str, Any]:
        """What all frames' headers say; None: the key is left out."""
        record, (low, high) = self.record, self.wavelengths_nm
        lines = list(record.get("spectralLines") or ())[: len(_LINE_KEYS)]
        return {
            "DSETID": self.dataset_id,
            "POINT_ID": self.dataset_id,
            "PRODUCT": record["productId"],
            "OBSPR_ID": self.op_id,
            "IP_ID": record["instrumentProgramExecutionId"],
            "PROP_ID": record["primaryProposalId"],
            "PROPID01": record["primaryProposalId"],
            "EXPER_ID": record["primaryExperimentId"],
            "EXPRID01": record["primaryExperimentId"],
            "OBJECT": record["targetTypes"][0],
            "LINEWAV": (low + high) / 2,
            "WAVEMIN": low,
            "WAVEMAX": high,
            "WAVEUNIT": _NANOMETRE,
            "WAVEBAND": lines[0] if lines else f"{(low + high) / 2:.2f} nm",
            "NSPECLNS": len(lines) or None,  # 0 is not allowed
            **{key: lines[i] if i < len(lines) else None for i, key in enumerate(_LINE_KEYS)},
            "XPOSURE": self.exposure_ms,
            "TEXPOSUR": self.exposure_ms,
            "CADENCE": self.cadence_s,
            "CADMIN": self.cadence_s,
            "CADMAX": self.cadence_s,
            "CADVAR": 0.0,
            "DATE": self.header_created,
            "FRAMEVOL": FRAME_VOLUME_MIB,
            "SOLARRAD": 959.63,
            "VSPNMAPS": 1,
            "VSPMAP": 1,
            "VSPARMID": {"5": 2, "8": 3}.get(str(low)[0], 1),
            "RECIPEID": record["recipeId"],
            "RINSTID": record["recipeInstanceId"],
            "RRUNID": record["recipeRunId"],
            "IDSPARID": record["inputDatasetParametersPartId"],
            "IDSOBSID": record["inputDatasetObserveFramesPartId"],
            "IDSCALID": record["inputDatasetCalibrationFramesPartId"],
            "WKFLNAME": record["workflowName"],
            "WKFLVERS": record["workflowVersion"],
            "HLSVERS": record["highLevelSoftwareVersion"],
            "HEADVERS": record["headerVersion"],
            "HEAD_URL": record["headerDocumentationUrl"],
            "INFO_URL": record["infoUrl"],
            "CAL_URL": record["calibrationDocumentationUrl"],
        }

    def each_frame(self, number: int) -> dict[str, Any]:
        """What the header of one frame says; over all frames it makes up what the record counts."""
        record, step = self.record, number % self.steps
        share = number / max(1, self.count - 1)
        out = {
            "FILENAME": self.file_name(number),
            "VSPSTP": step + 1,
            "DSHEALTH": _counted(record.get("health"), number, "unknown").capitalize(),
            "GOS_STAT": _counted(record.get("gosStatus"), number, "undefined"),
            "AO_LOCK": number < (record.get("aoLocked") or 0),
        }
        for key, name in (("ATMOS_R0", "friedParameter"), ("LIGHTLVL", "lightLevel")):
            if record.get(name) is not None:
                out[key] = _quantile(record[name], share)
        return out


def frame_plan(record: Row) -> FramePlan:
    """The frames of a dataset.

    Raises
    ------
    KeyError, TypeError, ValueError
        When the record lacks or garbles what frames are made from.
    """
    stokes = str(record["stokesParameters"])
    if record["instrumentName"] != "VISP" or stokes not in (_STOKES, "I"):
        raise ValueError("no ViSP dataset")
    low, high = float(record["wavelengthMin"]), float(record["wavelengthMax"])
    if not 0 < low < high < math.inf:
        raise ValueError("no range of wavelengths")
    plan = FramePlan(
        record=record,
        dataset_id=record["datasetId"],
        op_id=record["observingProgramExecutionId"],
        stokes=stokes,
        steps=int(record["originalFrameCount"]) // len(stokes),
        kept=int(record["frameCount"]),
        start=datetime.fromisoformat(record["startTime"]),
        end=datetime.fromisoformat(record["endTime"]),
        exposure_ms=float(record["exposureTime"]),
        wavelengths_nm=(low, high),
        box=_box(record["boundingBox"]),
    )
    if plan.steps < 2 or plan.cadence_s <= 0:
        raise ValueError("no raster")
    return plan


def _box(text: str) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(part) for part in text.replace("(", "").replace(")", "").split(","))
    box = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
    if not all(abs(value) < 2000 for value in box) or box[0] == box[2] or box[1] == box[3]:
        raise ValueError("no place on the sun")
    return box


def _counted(counts: Mapping[str, int | None] | None, number: int, otherwise: str) -> str:
    """The value of frame ``number`` when the values follow each other as often as they were counted."""
    for value in sorted(counts or {}, key=lambda name: -((counts or {})[name] or 0)):
        number -= (counts or {})[value] or 0
        if number < 0:
            return value
    return otherwise


def _quantile(spread: Mapping[str, float], share: float) -> float:
    """The value below which ``share`` of a distribution lies, by its five recorded points."""
    values = [spread[name] for name in ("min", "p25", "med", "p75", "max")]
    part, rest = divmod(min(share, 1.0) * 4, 1)
    index = min(int(part), 3)
    rest = 1.0 if part > 3 else rest
    return values[index] + rest * (values[index + 1] - values[index])
