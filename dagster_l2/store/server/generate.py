"""Records of any number of observing programs, made from a seed and shaped like the real ones.

Here: which programs exist, when they were observed, what is wrong with them, their experiments and how far
their processing is. The dataset records themselves are made in ``generate_datasets``.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from dagster_l2.store.server.generate_datasets import Maker, Program, later, text
from dagster_l2.store.server.generate_measured import Defect
from dagster_l2.store.server.records import RecordSet, Row

DEMO_NOW = datetime(2026, 1, 15, tzinfo=UTC)
"""The moment the embedded store's records stand at, so that they do not change from run to run."""

_FIRST_OBSERVATION = datetime(2022, 2, 23)  # noqa: DTZ001 (the store's moments have no zone)
_QUIET = timedelta(days=8)
_ARRIVING_SHARE = 0.08
_INVERTIBLE_SHARE = 0.6

# Number of OPs of one experiment after the other, again and again.
_EXPERIMENT_SIZES = (1, 4, 12, 7, 2, 10)
_EXPERIMENT_STARTS = (0, *accumulate(_EXPERIMENT_SIZES))

# Datasets of an OP: 3 to 13, median 8, as in the real records.
_SIZES = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
_SIZE_WEIGHTS = (5, 10, 12, 8, 6, 22, 12, 6, 10, 5, 4)

# What makes a ViSP program not invertible, most often the Stokes parameters, as in the real records.
_DEFECTS: tuple[tuple[Defect, int], ...] = (
    ("stokes", 40),
    ("no_iron", 12),
    ("off_disk", 8),
    ("garbage_box", 8),
    ("no_box", 2),
    ("low_health", 8),
    ("no_health", 4),
    ("closed", 6),
    ("no_gos", 3),
    ("low_ao", 6),
    ("no_ao", 2),
    ("no_frames", 1),
)

_TARGETS = ("sunspot", "quietsun", "plages", "coronalhole", "filament", "prominence")
_SENTENCES = (
    "Spectropolarimetry of the photosphere and the chromosphere at the same time.",
    "We look for the small-scale magnetic field at the footpoints of spicules.",
    "A raster of 210 steps across the penumbra, repeated as long as the seeing holds.",
    "The Evershed flow in “penumbral” filaments at the diffraction limit.",
    "Flux emergence in a young active region; pointing follows the coordinated space mission.",
)


@dataclass(frozen=True)
class _Experiment:
    proposal_id: str
    experiment_id: str
    first_day: datetime
    description: str | None
    target: str


def generate(
    observing_programs: int, seed: int, now: datetime = DEMO_NOW, *, small_frames: bool = False
) -> RecordSet:
    """Make the records of a store.

    Parameters
    ----------
    observing_programs
        How many OPs; about eight datasets each. The same OPs come first whatever the number.
    seed
        The same seed gives the same records.
    now
        Everything was created before it. Most OPs have been quiet for more than 7 days, a few are arriving.
    small_frames
        ViSP datasets have tens of small frames, which can be made and served, instead of thousands.

    Returns
    -------
    RecordSet
        Datasets, earlier versions of some, experiment descriptions and processing candidates.
    """
    moment = now.astimezone(UTC).replace(tzinfo=None) if now.tzinfo else now
    maker = Maker(seed, small_frames=small_frames)
    out = RecordSet()
    experiment: _Experiment | None = None
    for number in range(observing_programs):
        rng = random.Random(f"{seed}/{number}")
        index, is_first = _experiment_of(number)
        if experiment is None or is_first:
            experiment = _experiment(seed, index, moment)
            out.experiments.append(_description(experiment, index))
        program = _program(rng, number, experiment, moment)
        made = maker.datasets(rng, program)
        out.datasets.extend(made)
        out.history.extend(maker.earlier_versions(rng, made))
        if rng.random() < 0.9:
            out.processing_candidates.append(_candidate(rng, number, program, made))
    return out


def _experiment_of(number: int) -> tuple[int, bool]:
    """Index of the experiment that an OP belongs to, and whether it is the first of it."""
    rounds, rest = divmod(number, _EXPERIMENT_STARTS[-1])
    position = bisect_right(_EXPERIMENT_STARTS, rest) - 1
    return rounds * len(_EXPERIMENT_SIZES) + position, rest == _EXPERIMENT_STARTS[position]


def _experiment(seed: int, index: int, now: datetime) -> _Experiment:
    rng = random.Random(f"{seed}/experiment/{index}")
    cycle, number = 1 + index % 3, 101 + index
    last_day = (now - timedelta(days=150)).replace(hour=0, minute=0, second=0, microsecond=0)
    days = max(1, (last_day - _FIRST_OBSERVATION).days)
    return _Experiment(
        proposal_id=f"pid_{cycle}_{number}",
        experiment_id=f"eid_{cycle}_{number}",
        first_day=last_day - timedelta(days=rng.randrange(days)),
        description=_prose(rng),
        target=rng.choice(_TARGETS),
    )


def _prose(rng: random.Random) -> str | None:
    if rng.random() < 0.05:
        return None
    sentences = rng.sample(_SENTENCES, k=rng.randint(2, 4))
    # A seventh of the real descriptions breaks its lines, and some hold a literal backslash and n.
    draw = rng.random()
    return ("\n" if draw < 0.15 else "\\n" if draw < 0.22 else " ").join(sentences)


def _description(experiment: _Experiment, index: int) -> Row:
    return {
        "experimentDescriptionId": index + 1,
        "experimentId": experiment.experiment_id,
        "experimentDescription": experiment.description,
        "createDate": text(experiment.first_day - timedelta(days=60)),
        "updateDate": None,
    }


def _program(rng: random.Random, number: int, experiment: _Experiment, now: datetime) -> Program:
    observation, serial = 80000 + (number // 7) * 3, 13_000_000 + number * 137
    start = experiment.first_day + timedelta(
        days=rng.randrange(5), hours=17, minutes=rng.randrange(300), microseconds=rng.randrange(10**9)
    )
    has_visp = rng.random() < 0.9
    defects: tuple[Defect, ...] = ()
    if has_visp and rng.random() >= _INVERTIBLE_SHARE:
        kinds, weights = zip(*_DEFECTS, strict=True)
        defects = tuple(sorted(set(rng.choices(kinds, weights, k=rng.choice((1, 1, 1, 2))))))
    is_arriving = rng.random() < _ARRIVING_SHARE
    embargo = rng.random()
    is_embargoed = embargo < 0.1
    embargo_end = None
    if embargo < 0.08 or 0.1 <= embargo < 0.15:
        embargo_end = text((now + timedelta(days=rng.randint(-200, 400))).replace(microsecond=0))
    letters = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", k=6))
    return Program(
        op_id=f"{experiment.experiment_id}_op{letters}_R001.{observation}.{serial}",
        proposal_id=experiment.proposal_id,
        experiment_id=experiment.experiment_id,
        description=experiment.description,
        target=experiment.target,
        number=number,
        observation=observation,
        start=start,
        end=start + timedelta(seconds=rng.randint(300, 3600)),
        size=rng.choices(_SIZES, _SIZE_WEIGHTS)[0],
        has_visp=has_visp,
        has_cryo=rng.random() < (0.08 if has_visp else 0.5),
        defects=defects,
        last_arrival=now - (timedelta(hours=rng.randint(2, 140)) if is_arriving else _QUIET),
        is_arriving=is_arriving,
        now=now,
        is_embargoed=is_embargoed,
        embargo_end=embargo_end,
        bucket="data" if rng.random() < 0.7 else "public",
    )


def _candidate(rng: random.Random, number: int, program: Program, made: list[Row]) -> Row:
    """How far the processing of an OP is; its counts are over all instruments."""
    total = len({row["productId"] for row in made})
    draw = rng.random()
    planned: int | None = total
    complete = total
    if draw < 0.2:
        planned = None
        complete = rng.randint(0, total)
    elif draw < 0.5 or program.is_arriving:
        planned = total + rng.randint(1, 3)
        complete = rng.randint(1, total)
    created = later(rng, program.end, program.last_arrival, 5)
    return {
        "processingCandidateId": number + 1,
        "observingProgramExecutionId": program.op_id,
        "proposalId": program.proposal_id,
        "experimentId": program.experiment_id,
        "plannedRecipeCount": planned,
        "totalRecipeInstanceCount": total,
        "completeRecipeInstanceCount": complete,
        "isLocked": rng.random() < 0.1,
        "dataAcquisitionCompletionDate": text(program.end),
        "createDate": text(created),
        "updateDate": text(later(rng, created, program.now, 60)) if rng.random() < 0.7 else None,
    }
