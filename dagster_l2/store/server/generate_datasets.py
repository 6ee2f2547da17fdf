"""Dataset records of one observing program: arms and channels, versions, counts, boxes, and their quirks.

Which programs exist and what is wrong with them is decided in ``generate``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dagster_l2.store.server.frame_plan import FRAME_VOLUME_MIB
from dagster_l2.store.server.generate_measured import Defect, measure
from dagster_l2.store.server.records import Row

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CODES = len(_LETTERS) ** 5
_SLOTS = 16  # codes reserved for each OP, more than it has datasets


@dataclass(frozen=True)
class Program:
    """What one OP is like, before it has datasets. Moments are UTC without a zone."""

    op_id: str
    proposal_id: str
    experiment_id: str
    description: str | None
    target: str
    number: int
    observation: int
    start: datetime
    end: datetime
    size: int
    has_visp: bool
    has_cryo: bool
    defects: tuple[Defect, ...]
    last_arrival: datetime
    is_arriving: bool
    now: datetime
    is_embargoed: bool
    embargo_end: str | None
    bucket: str


@dataclass(frozen=True)
class _Channel:
    """A wavelength channel of an instrument: its range in nm and the names of its lines."""

    instrument: str
    lowest: float
    highest: float
    lines: tuple[str, ...]


_IRON = (
    _Channel("VISP", 630.2392098893586, 634.3897538455635, ("Fe I (630.25 nm)",)),
    _Channel("VISP", 629.4571, 630.6642, ("Fe I (630.15 nm)", "Fe I (630.25 nm)")),
)
_OTHER_ARMS = (
    _Channel("VISP", 853.7002737559743, 854.6361356847904, ("Ca II (854.21 nm)",)),
    _Channel("VISP", 588.8143, 589.9027, ("Na I D1 (589.59 nm)", "Na I D2 (589.0 nm)")),
    _Channel("VISP", 516.6120, 517.8033, ("Mg I b1 (517.27 nm)",)),
)
_FILTERS = (
    _Channel("VBI", 393, 393, ("Ca II K (393.37 nm)",)),
    _Channel("VBI", 430, 430, ()),
    _Channel("VBI", 486, 486, ("H beta (486.13 nm)",)),
    _Channel("VBI", 450, 450, ()),
    _Channel("VBI", 656, 656, ("H alpha (656.28 nm)",)),
    _Channel("VBI", 705, 705, ()),
)
_CRYO = (
    _Channel("CRYO-NIRSP", 1073.4218, 1076.0934, ("Fe XIII dx (1074.7 nm)",)),
    _Channel("CRYO-NIRSP", 1049.5, 1050, ()),
)
_PROGRAM_OFFSETS = {"VISP": 3000, "VBI": 2990, "CRYO-NIRSP": 3010}


@dataclass(frozen=True)
class _Slot:
    """One dataset to be made: which channel, which version of its product."""

    channel: _Channel
    product: int
    version: int


def text(moment: datetime) -> str:
    """A moment as the store writes it: 26 characters, 19 when the microseconds are zero."""
    return moment.isoformat()


def later(rng: random.Random, start: datetime, limit: datetime, typical_days: float) -> datetime:
    """A moment after ``start`` and before ``limit``, ``typical_days`` on if there is room."""
    room = (limit - start).total_seconds()
    seconds = typical_days * 86400 * (0.2 + 1.6 * rng.random())
    return start + timedelta(seconds=seconds if seconds < room else room * (0.1 + 0.85 * rng.random()))


class Maker:
    """Make dataset records.

    Parameters
    ----------
    seed
        Shifts the ids, so that two stores rarely share one.
    small_frames
        See `generate`.
    """

    def __init__(self, seed: int, *, small_frames: bool = False) -> None:
        self._small_frames = small_frames
        self._offset = random.Random(seed).randrange(_CODES)

    def datasets(self, rng: random.Random, program: Program) -> list[Row]:
        """The records of one OP, as many as its size."""
        slots = _slots(rng, program)
        created = _created(rng, program, slots)
        newest = {slot.product: slot.version for slot in slots}
        visp = [slot.product for slot in slots if slot.channel.instrument == "VISP" and slot.version == 1]
        spoiled = visp if rng.random() < 0.7 else visp[-1:]
        shared = {name: _Shared(rng, program) for name in sorted({s.channel.instrument for s in slots})}
        products: dict[int, dict[str, Any]] = {}
        out = []
        for index, (slot, moment) in enumerate(zip(slots, created, strict=True)):
            if slot.product not in products:
                defects = program.defects if slot.product in spoiled else ()
                products[slot.product] = measure(
                    rng, slot.channel.instrument == "VISP", defects, small_frames=self._small_frames
                )
            code = program.number * _SLOTS + index
            ids = {
                "datasetInventoryId": code + 1,
                "datasetId": self._letters(code, 7_654_321),
                "productId": f"L1-{self._letters(program.number * _SLOTS + slot.product, 3_456_791)}",
                "status": _status(rng, slot, newest[slot.product]),
            }
            part = shared[slot.channel.instrument]
            row = {**ids, **_record(rng, program, slot, part, moment, ids), **products[slot.product]}
            if self._small_frames and slot.channel.instrument == "VISP":
                row["datasetSize"] = row["originalFrameCount"] * FRAME_VOLUME_MIB / 1024
            out.append(row)
        return out

    def earlier_versions(self, rng: random.Random, made: Sequence[Row]) -> Iterator[Row]:
        """Records as they were before: embargoes that ended without a new ``updateDate``."""
        for row in made:
            if not row["isEmbargoed"] and rng.random() < 0.05:
                yield {**row, "isEmbargoed": True}

    def _letters(self, number: int, factor: int) -> str:
        # The factors share no divisor with 26, so that different numbers never share a code.
        rest = (number * factor + self._offset) % _CODES
        out = ""
        for _ in range(5):
            rest, letter = divmod(rest, 26)
            out += _LETTERS[letter]
        return out


def _slots(rng: random.Random, program: Program) -> list[_Slot]:
    """Channels and versions, ViSP first, filled up with VBI to the size of the OP."""
    channels: list[_Channel] = []
    if program.has_visp:
        arms = 2 if rng.random() < 0.25 else 3
        others = list(_OTHER_ARMS) if "no_iron" in program.defects else list(_OTHER_ARMS[:2])
        iron = [] if "no_iron" in program.defects else [rng.choice(_IRON)]
        channels += [*iron, *others][:arms]
    if program.has_cryo and len(channels) + 2 <= program.size:
        channels += _CRYO
    out = [_Slot(channel, product, 1) for product, channel in enumerate(channels)]
    if program.has_visp and rng.random() < 0.15 and 2 * len(out) <= program.size:
        out += [_Slot(slot.channel, slot.product, 2) for slot in out if slot.channel.instrument == "VISP"]
    filters = [
        _Slot(channel, len(channels) + index, 1)
        for index, channel in enumerate(rng.sample(_FILTERS, len(_FILTERS)))
    ]
    main = rng.choice((2, 3, 3, 4))
    more = [*filters[:main], *_again(filters[:main], 2), *filters[main:], *_again(filters, 3)]
    return out + more[: program.size - len(out)]


def _again(slots: Sequence[_Slot], version: int) -> list[_Slot]:
    return [_Slot(slot.channel, slot.product, version) for slot in slots]


def _created(rng: random.Random, program: Program, slots: Sequence[_Slot]) -> list[datetime]:
    """When each dataset was created: arms together, VBI when its turn came, versions long after."""
    limit = program.last_arrival
    together = later(rng, program.end, limit, 120)
    before: dict[int, datetime] = {}
    out = []
    for slot in slots:
        if slot.version > 1:
            moment = later(rng, before[slot.product], limit, 250)
        elif slot.channel.instrument == "VISP":
            moment = together = later(rng, together, limit, 0.5)
        else:
            moment = later(rng, program.end, limit, 200)
        before[slot.product] = moment
        out.append(moment)
    if program.is_arriving:
        visp = [index for index, slot in enumerate(slots) if slot.channel.instrument == "VISP"]
        out[visp[-1] if visp else -1] = limit
    return out


def _status(rng: random.Random, slot: _Slot, newest: int) -> str:
    draw = rng.random()
    if slot.version < newest:
        return "DEPRECATED" if draw < 0.25 else "REMOVED" if draw < 0.28 else "ACTIVE"
    # A reprocessing that was withdrawn: the version before it is the current one again.
    return "DEPRECATED" if slot.version > 1 and draw < 0.03 else "ACTIVE"


class _Shared:
    """What the datasets of one instrument program share: seeing, light, pointing."""

    def __init__(self, rng: random.Random, program: Program) -> None:
        light, fried = 380 + 280 * rng.random(), 0.02 + 0.11 * rng.random()
        self.light_level = _distribution(light, 0.01)
        self.fried_parameter = None if rng.random() < 0.02 else _distribution(fried, 0.5)
        self.accuracy = _distribution(1e-3 * (0.5 + rng.random()), 0.3)
        self.fried_median = fried
        self.workflow_version = f"{2 + program.number % 3}.{program.number % 10}.0"
        self.exposure_ms = round(1 + 50 * rng.random(), 3)


def _distribution(middle: float, spread: float) -> dict[str, float]:
    return {
        "min": middle * (1 - spread),
        "p25": middle * (1 - spread / 3),
        "med": middle,
        "p75": middle * (1 + spread / 3),
        "max": middle * (1 + spread),
    }


def _record(
    rng: random.Random,
    program: Program,
    slot: _Slot,
    shared: _Shared,
    created: datetime,
    ids: dict[str, Any],
) -> Row:
    """Everything else of a record: descriptive fields that decide nothing."""
    channel, dataset_id = slot.channel, ids["datasetId"]
    instrument = channel.instrument
    shift = timedelta(seconds=18.28 * (slot.version - 1))
    start, end = program.start + shift, program.end + shift
    has_lines = bool(channel.lines) and (rng.random() < 0.85 or slot.version > 1)
    folder = f"{program.proposal_id}/{dataset_id}"
    parts = ids["datasetInventoryId"] * 3
    bucket = program.bucket if rng.random() < 0.99 else ("public" if program.bucket == "data" else "data")
    return {
        "createDate": text(created),
        "updateDate": text(later(rng, created, program.now, 90)) if rng.random() < 0.85 else None,
        "observingProgramExecutionId": program.op_id,
        "instrumentProgramExecutionId": f"id.{program.observation + _PROGRAM_OFFSETS[instrument]}"
        f".{60_000 + program.number * 97}",
        "instrumentName": instrument,
        "primaryProposalId": program.proposal_id,
        "primaryExperimentId": program.experiment_id,
        "contributingProposalIds": [program.proposal_id],
        "contributingExperimentIds": [program.experiment_id],
        "startTime": text(start),
        "endTime": text(end),
        "wavelengthMin": channel.lowest,
        "wavelengthMax": channel.highest,
        "spectralLines": list(channel.lines) if has_lines else None,
        "exposureTime": shared.exposure_ms,
        "lightLevel": shared.light_level,
        "polarimetricAccuracy": shared.accuracy if instrument == "VISP" else None,
        "friedParameter": shared.fried_parameter,
        "qualityAverageFriedParameter": shared.fried_median,
        "qualityAveragePolarimetricAccuracy": shared.accuracy["med"] if instrument == "VISP" else None,
        "bucket": bucket,
        **_provenance(slot, shared, created, ids),
        "asdfObjectKey": f"{folder}/{instrument}_L1_{start:%Y%m%dT%H%M%S}_{dataset_id}_metadata.asdf",
        "browseMovieObjectKey": f"{folder}/{dataset_id}.mp4",
        "browseMovieUrl": f"https://vimeo.com/{1_000_000_000 + parts}" if rng.random() < 0.95 else None,
        "qualityReportObjectKey": f"{folder}/{dataset_id}_quality_report.pdf",
        "qualityDataObjectKey": None,
        "datasetSize": round(0.5 + 60 * rng.random(), 3),
        "isEmbargoed": program.is_embargoed,
        "embargoEndDate": program.embargo_end,
        "experimentDescription": program.description,
        "targetTypes": [program.target],
        "proposalInvestigators": [f"user_{program.number % 50}"],
        "authorizedAgents": None,
    }


def _provenance(slot: _Slot, shared: _Shared, created: datetime, ids: dict[str, Any]) -> Row:
    """How a dataset was made: recipes, parts, workflow, versions, documentation."""
    channel, instrument = slot.channel, slot.channel.instrument
    parts = ids["datasetInventoryId"] * 3
    return {
        "hasSpectralAxis": instrument != "VBI",
        "hasTemporalAxis": True,
        "averageDatasetSpectralSampling": None if instrument == "VBI" else 0.00127,
        "averageDatasetSpatialSampling": 0.011 if instrument == "VBI" else 0.0298,
        "averageDatasetTemporalSampling": 3.0 if instrument == "VBI" else None,
        "isManuallyProcessed": False,
        "recipeId": 1 + _FILTERS.index(channel) if channel in _FILTERS else 10,
        "recipeInstanceId": parts,
        "recipeRunId": parts + slot.version,
        "inputDatasetParametersPartId": parts,
        "inputDatasetObserveFramesPartId": parts + 1,
        "inputDatasetCalibrationFramesPartId": parts + 2,
        "workflowName": f"l0_to_l1_{instrument.lower()}",
        "workflowVersion": shared.workflow_version,
        "highLevelSoftwareVersion": "Pono_4",
        "headerVersion": "4.5.0",
        "headerDataUnitCreationDate": text(created.replace(microsecond=0)),
        "headerDocumentationUrl": "https://docs.dkist.nso.edu/projects/data-products/en/v4.5.0",
        "infoUrl": "https://docs.dkist.nso.edu",
        "calibrationDocumentationUrl": f"https://docs.dkist.nso.edu/projects/{instrument.lower()}",
    }
