"""The document of an observing program that was inverted: what others may aggregate of it, as JSON.

Its schema is beside this file, versioned. Here rows become a document; where documents lie is not here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

OP_DOCUMENT_VERSION = "1.0"
OP_DOCUMENT_SCHEMA = Path(__file__).with_name("op_document.schema.json")

Row = Mapping[str, Any]
Document = dict[str, Any]


def op_document(
    op: Row, datasets: Sequence[Row], inversions: Sequence[Row], history: Sequence[Row]
) -> Document:
    """The document of one observing program, all but ``updated_at``.

    Parameters
    ----------
    op, datasets, inversions, history
        Its rows of the marts ``observing_programs``, ``datasets``, ``inversions`` and ``op_history``, in any
        order. Of the inversions those count whose products were verified.
    """
    states = sorted(history, key=lambda row: int(row["seq"]))
    verified = [row for row in inversions if row["inverted_at"] is not None]
    programs = {
        str(row["instrument_program_id"]): row["instrument"]
        for row in datasets
        if row["instrument_program_id"]
    }
    return {
        "schema_version": OP_DOCUMENT_VERSION,
        "op_id": op["op_id"],
        "state": states[-1]["to_state"],
        "proposal_id": op["proposal_id"],
        "experiment": {"experiment_id": op["experiment_id"], "description": op["experiment_description"]},
        "instrument_programs": [
            {"instrument_program_id": program, "instrument": instrument}
            for program, instrument in sorted(programs.items())
        ],
        "start_time": _moment(op["start_time"]),
        "end_time": _moment(op["end_time"]),
        "embargo": {"is_embargoed": bool(op["is_embargoed"]), "end_date": _moment(op["embargo_end_date"])},
        "spectral_lines": _names(op["spectral_lines"]),
        "datasets": [_dataset(row) for row in sorted(datasets, key=lambda row: str(row["dataset_id"]))],
        "inversions": [
            _inversion(row)
            for row in sorted(verified, key=lambda row: (row["inverted_at"], row["inversion_id"]))
        ],
        "states": [
            {
                "seq": int(row["seq"]),
                "state": row["to_state"],
                "since": _moment(row["occurred_at"]),
                "until": _moment(row["ended_at"]),
                "inversion_id": row["inversion_id"],
            }
            for row in states
        ],
    }


def etag(document: Mapping[str, Any]) -> str:
    """A hash of all that a document says but when it changed."""
    said = {key: value for key, value in document.items() if key != "updated_at"}
    text = json.dumps(said, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _dataset(row: Row) -> Document:
    same = (
        "dataset_id", "product_id", "instrument", "instrument_program_id", "wavelength_min_nm",
        "wavelength_max_nm", "stokes", "status",
    )  # fmt: skip
    return {
        **{name: row[name] for name in same},
        "start_time": _moment(row["start_time"]),
        "end_time": _moment(row["end_time"]),
        "frame_count": int(row["frame_count"]),
        "spectral_lines": _names(row["spectral_lines"]),
        "lines_estimated": bool(row["lines_estimated"]),
    }


def _inversion(row: Row) -> Document:
    return {
        "inversion_id": row["inversion_id"],
        "state": row["last_state"],
        "instrument_program_id": row["instrument_program_id"],
        "dataset_ids": _names(row["dataset_ids"]),
        "spectral_lines": _names(row["spectral_lines"]),
        "software_commit": row["commit_hash"],
        "inverted_at": _moment(row["inverted_at"]),
        "published_at": _moment(row["published_at"]),
        "bucket": row["bucket"],
        "asdf_object_key": row["asdf_object_key"],
    }


def _names(values: Sequence[Any] | None) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values or ()))


def _moment(value: datetime | None) -> str | None:
    if value is None:
        return None
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
