"""The level-2 files of an inversion that is about to be published, from what ledger, store and inputs say.

Composed from the rooms: the layout and the writing are in ``products``, where the files go in ``publishing``.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dagster_l2.base.files import safe_name, step
from dagster_l2.inputs import FramesNotStaged, package_folder, staged_frames
from dagster_l2.ledger import Ledger, Present, State
from dagster_l2.products import (
    KNOWN_LINES,
    Level2Damaged,
    Level2Files,
    Level2Refused,
    Level2Request,
    check_level2,
    object_folder,
    read_level2,
    write_level2,
)

WRITTEN = "written"  # the recorded step, before those of `PublishStep`
_FOLDER = "level2"
_FE_I_630 = KNOWN_LINES[23]


def level2_folder(data: Path) -> Path:
    """Where the level-2 files of all inversions lie, as ``<proposal>/inv_XXXXXX``."""
    return data / _FOLDER


def files_of(data: Path, inversion_id: str) -> Level2Files | None:
    """The level-2 files of an inversion, whichever its proposal; None before they are written."""
    folder = level2_folder(data)
    inside = object_folder("*", inversion_id).name
    proposals = [path.parent.name for path in sorted(folder.glob(f"*/{glob.escape(inside)}"))]
    found = (read_level2(folder, proposal, inversion_id) for proposal in proposals)
    return next((files for files in found if files is not None), None)


def write_files(
    ledger: Ledger,
    data: Path,
    present: Present,
    records: Sequence[Mapping[str, Any]],
    *,
    actor: str,
    run_id: str | None,
) -> Level2Files:
    """Write the level-2 files of an Inverted OP, unless those of the same products are there, and record it.

    Parameters
    ----------
    records
        The store's records of the datasets that were inverted, as sent.

    Notes
    -----
    Files that are there and whole are kept whatever the store says by now: the catalog may have been told of
    them, and from then on they must not change.

    Raises
    ------
    Level2Refused
        The products cannot be told in level-2 files, or the disk refuses them.
    AlreadyRunning
        Another process writes them.
    """
    files = _files(ledger, data, present, records)
    step(f"record {WRITTEN}")
    ledger.record_step(
        present.op_id,
        inversion_id=str(present.inversion_id),
        subject=str(present.inversion_id),
        step=WRITTEN,
        details={"asdf": files.asdf_object_key, "files": len(files.names), "bytes": files.size},
        actor=actor,
        run_id=run_id,
    )
    return files


def _files(ledger: Ledger, data: Path, present: Present, records: Sequence[Mapping[str, Any]]) -> Level2Files:
    inversion_id = str(present.inversion_id)
    wanted = {file["name"]: file["sha256"] for file in present.details.get("products") or ()}
    there = read_level2(level2_folder(data), str(records[0]["primaryProposalId"]), inversion_id)
    if there is not None and there.manifest.get("products") == wanted:
        try:
            check_level2(there)
        except Level2Damaged:
            pass  # written again
        else:
            return there
    request = _request(ledger, present, records)
    frames = _frames(data, present.op_id, request.canonical_dataset_id)
    home = data / "products" / safe_name(inversion_id)
    return write_level2(home, level2_folder(data), request, frames)


def _request(ledger: Ledger, present: Present, records: Sequence[Mapping[str, Any]]) -> Level2Request:
    by_id = {str(record["datasetId"]): record for record in records}
    dataset_ids = tuple(str(dataset_id) for dataset_id in present.details["dataset_ids"])
    canonical = next((key for key in dataset_ids if _has_fe_i_630(by_id[key])), dataset_ids[0])
    record = by_id[canonical]
    start, end = _moment(record.get("startTime")), _moment(record.get("endTime"))
    if start is None:
        raise Level2Refused(
            f"The store does not say when dataset {canonical!r} was observed, so its level-2 files cannot be"
            " named; retry when its record is mended."
        )
    return Level2Request(
        inversion_id=str(present.inversion_id),
        op_id=present.op_id,
        proposal_id=str(record["primaryProposalId"]),
        experiment_id=record.get("primaryExperimentId"),
        instrument_program_id=str(present.details["instrument_program_id"]),
        instrument=str(record.get("instrumentName") or "VISP"),
        dataset_ids=dataset_ids,
        canonical_dataset_id=canonical,
        start_time=start,
        end_time=max(start, end or start),
        bounding_box=record.get("boundingBox"),
        created_at=_inverted_at(ledger, present).replace(tzinfo=None),
        software_commit=present.details.get("commit"),
        rule_version=present.rule_version,
    )


def _inverted_at(ledger: Ledger, present: Present) -> datetime:
    """When it first was Inverted: after an Error it is so again, and its files stay as they are."""
    return next(
        row.occurred_at
        for row in ledger.history(present.op_id)
        if row.to_state is State.INVERTED and row.inversion_id == present.inversion_id
    )


def _has_fe_i_630(record: Mapping[str, Any]) -> bool:
    low, high = record.get("wavelengthMin"), record.get("wavelengthMax")
    return low is not None and high is not None and low <= _FE_I_630.wavelength_nm <= high


def _frames(data: Path, op_id: str, dataset_id: str) -> list[Path]:
    """The staged frames of a dataset that are still there; none where they were evicted or never came."""
    folder = package_folder(data, op_id)
    try:
        rows = [row for row in staged_frames(folder) if row["dataset_id"] == dataset_id]
    except FramesNotStaged:
        return []
    paths = [folder / str(row["path"]) for row in rows]
    return paths if all(path.is_file() for path in paths) else []


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text).removesuffix("Z")).replace(tzinfo=None) if text else None
    except ValueError:
        return None
