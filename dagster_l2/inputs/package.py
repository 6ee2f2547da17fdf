"""The input package of an observing program: the datasets to invert, as one JSON document.

Here: its content, its place and how it is written and read. Not here: the rules that choose the datasets
(dbt) and the frames themselves; ``staged`` is false until something stages them.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from dagster_l2.base.errors import L2Error
from dagster_l2.base.files import safe_name, write_json

PACKAGE_FILE = "inputs.json"
SCHEMA_VERSION = 1
_INPUTS_FOLDER = "inputs"


class InputError(L2Error):
    """An input package could not be made or used; the message is one sentence."""


class PackageRefused(InputError):
    """The datasets do not make one input package."""


class PackageUnreadable(InputError):
    """The package on disk is missing or damaged."""


@dataclass(frozen=True, slots=True)
class InputDataset:
    """One level-1 dataset of an input package, as the warehouse names it.

    Parameters
    ----------
    wavelength_min_nm, wavelength_max_nm
        The range of the dataset in nm, or None when the store recorded none.
    frame_count
        Frames of the dataset; real ones have more than fit in 16 bits.
    spectral_lines
        Names such as ``Fe I (630.15 nm)``.
    lines_estimated
        Whether the lines were assumed from the wavelength range, since the store named none.
    asdf_object_key
        Where the dataset's ASDF lies in ``bucket``, or None.
    """

    op_id: str
    dataset_id: str
    product_id: str | None
    arm: str | None
    instrument_program_id: str | None
    proposal_id: str
    wavelength_min_nm: float | None
    wavelength_max_nm: float | None
    frame_count: int
    stokes: str | None
    spectral_lines: tuple[str, ...]
    lines_estimated: bool
    asdf_object_key: str | None
    bucket: str
    content_hash: str | None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> InputDataset:
        """Read one row of the warehouse.

        Raises
        ------
        PackageRefused
            When the row lacks what every dataset has, or its frame count is not a count.
        """
        dataset_id = _required(row, "dataset_id", "a dataset")
        owner = f"dataset {dataset_id!r}"
        return cls(
            op_id=_required(row, "op_id", owner),
            dataset_id=dataset_id,
            product_id=_text(row, "product_id"),
            arm=_text(row, "arm"),
            instrument_program_id=_text(row, "instrument_program_id"),
            proposal_id=_required(row, "proposal_id", owner),
            wavelength_min_nm=_finite(row.get("wavelength_min_nm")),
            wavelength_max_nm=_finite(row.get("wavelength_max_nm")),
            frame_count=_count(row.get("frame_count"), owner),
            stokes=_text(row, "stokes"),
            spectral_lines=tuple(str(line) for line in _rows(row.get("spectral_lines"))),
            lines_estimated=bool(row.get("lines_estimated")),
            asdf_object_key=_text(row, "asdf_object_key"),
            bucket=_required(row, "bucket", owner),
            content_hash=_text(row, "content_hash"),
        )


def build_package(
    op_id: str,
    datasets: Iterable[InputDataset | Mapping[str, Any]],
    *,
    inputs_hash: str,
    rule_version: str,
    created_at: datetime,
) -> dict[str, Any]:
    """The input package of one observing program.

    Parameters
    ----------
    datasets
        Its current datasets of the one supported instrument program, in any order.
    inputs_hash
        The warehouse's hash over dataset ids and frame counts.
    created_at
        When the package is made; a time without a zone is UTC.

    Returns
    -------
    dict
        What ``inputs.json`` holds. Each dataset appears once, in the group of its arm and lines; the order of
        groups and datasets does not depend on the order given.

    Raises
    ------
    PackageRefused
        No dataset, a dataset twice, one of another observing program, or more than one instrument program or
        proposal (the store keys an inversion by instrument program).
    """
    chosen = [row if isinstance(row, InputDataset) else InputDataset.from_row(row) for row in datasets]
    _check_chosen(op_id, chosen)
    program = _the_one(op_id, "instrument program", (dataset.instrument_program_id for dataset in chosen))
    proposal = _the_one(op_id, "proposal", (dataset.proposal_id for dataset in chosen))
    return {
        "schema_version": SCHEMA_VERSION,
        "op_id": op_id,
        "proposal_id": proposal,
        "instrument_program_id": program,
        "inputs_hash": inputs_hash,
        "rule_version": rule_version,
        "created_at": _utc_text(created_at),
        "staged": False,
        "groups": _groups(chosen),
        "buckets": sorted({dataset.bucket for dataset in chosen}),
        "totals": {
            "datasets": len(chosen),
            "frames": sum(dataset.frame_count for dataset in chosen),
            "arms": len({dataset.arm for dataset in chosen if dataset.arm is not None}),
            "spectral_lines": sorted({line for dataset in chosen for line in dataset.spectral_lines}),
        },
    }


def package_folder(data_folder: Path, op_id: str) -> Path:
    """Where the package of an observing program lies below the data folder."""
    return data_folder / _INPUTS_FOLDER / safe_name(op_id)


def write_package(folder: Path, package: Mapping[str, Any]) -> Path:
    """Write ``inputs.json`` into ``folder``, durably, and return its path.

    A file that says the same already, apart from when it was made, is left alone: a rerun changes nothing.

    Raises
    ------
    InputError
        When it cannot be written (a full disk); what was there before stays.
    """
    path = folder / PACKAGE_FILE
    if _same_but_created(path, package):
        return path
    try:
        write_json(path, dict(package))
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"The input package {path} cannot be written ({reason}); make room and run again."
        ) from error
    return path


def read_package(path: Path) -> dict[str, Any]:
    """Read an input package, given its file or its folder.

    Raises
    ------
    PackageUnreadable
        When there is none, or it is not one of this version.
    """
    file = path / PACKAGE_FILE if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackageUnreadable(f"There is no input package at {file}; prepare the OP again.") from None
    except (OSError, ValueError) as error:
        raise PackageUnreadable(f"The input package {file} cannot be read; prepare the OP again.") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise PackageUnreadable(
            f"The file {file} is not an input package of version {SCHEMA_VERSION}; prepare again."
        )
    return content


def package_details(package: Mapping[str, Any], dataset_ids: Sequence[str] | None = None) -> dict[str, Any]:
    """What the ledger keeps of a package: when its OP becomes Preprocessed, and of what was inverted of it.

    Parameters
    ----------
    dataset_ids
        Only these datasets, with their lines and buckets; all unless given.

    Returns
    -------
    dict
        ``package`` is the path of the file relative to the data folder, so that the data folder can be moved.

    Raises
    ------
    PackageRefused
        A dataset is not in the package.
    """
    datasets = {
        dataset["dataset_id"]: dataset for group in package["groups"] for dataset in group["datasets"]
    }
    strangers = sorted(set(dataset_ids or ()) - set(datasets))
    if strangers:
        raise PackageRefused(
            f"Dataset {strangers[0]!r} is not in the input package of OP {package['op_id']!r}."
        )
    chosen = [dataset for key, dataset in datasets.items() if dataset_ids is None or key in set(dataset_ids)]
    return {
        "package": str(PurePosixPath(_INPUTS_FOLDER, safe_name(package["op_id"]), PACKAGE_FILE)),
        "instrument_program_id": package["instrument_program_id"],
        "dataset_ids": [dataset["dataset_id"] for dataset in chosen],
        "spectral_lines": sorted({line for dataset in chosen for line in dataset["spectral_lines"]}),
        "buckets": sorted({dataset["bucket"] for dataset in chosen}),
    }


def _check_chosen(op_id: str, chosen: Sequence[InputDataset]) -> None:
    if not chosen:
        raise PackageRefused(f"OP {op_id!r} has no dataset to invert; scan the store and build again.")
    strangers = sorted({dataset.dataset_id for dataset in chosen if dataset.op_id != op_id})
    if strangers:
        raise PackageRefused(
            f"Dataset {strangers[0]!r} does not belong to OP {op_id!r}; build the warehouse again."
        )
    ids = sorted(dataset.dataset_id for dataset in chosen)
    twice = [left for left, right in itertools.pairwise(ids) if left == right]
    if twice:
        raise PackageRefused(
            f"Dataset {twice[0]!r} is listed twice for OP {op_id!r}; build the warehouse again."
        )


def _groups(datasets: Sequence[InputDataset]) -> list[dict[str, Any]]:
    """One group per arm and set of lines; what belongs to the whole package is not repeated per dataset."""
    grouped: dict[tuple[str, tuple[str, ...]], list[InputDataset]] = {}
    for dataset in datasets:
        key = (dataset.arm or "", tuple(sorted(dataset.spectral_lines)))
        grouped.setdefault(key, []).append(dataset)
    shared = {"op_id", "instrument_program_id", "proposal_id", "arm"}
    return [
        {
            "arm": arm or None,
            "spectral_lines": list(lines),
            "datasets": [
                {name: value for name, value in asdict(dataset).items() if name not in shared}
                for dataset in sorted(members, key=lambda dataset: dataset.dataset_id)
            ],
        }
        for (arm, lines), members in sorted(grouped.items(), key=lambda item: item[0])
    ]


def _same_but_created(path: Path, package: Mapping[str, Any]) -> bool:
    try:
        there = read_package(path)
    except PackageUnreadable:
        return False
    wanted = json.loads(json.dumps(dict(package)))
    return {**there, "created_at": None} == {**wanted, "created_at": None}


def _the_one(op_id: str, what: str, values: Iterable[str | None]) -> str:
    found = sorted({value for value in values if value is not None})
    if not found:
        raise PackageRefused(
            f"OP {op_id!r} has datasets without {what}; it cannot be published, so it is not prepared."
        )
    if len(found) > 1:
        raise PackageRefused(
            f"OP {op_id!r} has {len(found)} {what}s ({', '.join(map(repr, found[:3]))});"
            " only one can be inverted."
        )
    return found[0]


def _required(row: Mapping[str, Any], name: str, owner: str) -> str:
    value = _text(row, name)
    if value is None:
        raise PackageRefused(f"In the warehouse {owner} has no {name}; build the warehouse again.")
    return value


def _text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    return None if value is None or value == "" else str(value)


def _rows(value: Any) -> list[Any]:
    # A warehouse row hands a list over as list, tuple or array; only the array has no truth value.
    return [] if value is None else list(value)


def _finite(value: Any) -> float | None:
    # NaN is not JSON; what cannot be a wavelength is as good as not recorded.
    if value is None or not math.isfinite(float(value)):
        return None
    return float(value)


def _count(value: Any, owner: str) -> int:
    # Python's own int: a 16-bit number from an array would wrap in the total.
    try:
        count = int(value)
    except (TypeError, ValueError, OverflowError):
        raise PackageRefused(
            f"In the warehouse {owner} has no frame count; build the warehouse again."
        ) from None
    if count < 0:
        raise PackageRefused(f"In the warehouse {owner} has {count} frames; build the warehouse again.")
    return count


def _utc_text(time: datetime) -> str:
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat()
