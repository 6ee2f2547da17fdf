"""From a row of ``op_verdicts`` to what the ledger is told, and what is recorded of where the row came from.

Both the pass that decides and whoever decides again later come here. The comparison is the ledger's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from dagster_l2.ledger import State, Transition, Verdict

FACTS = ("instrument_program_id", "dataset_ids", "buckets", "spectral_lines", "measured")
"""What of a verdict goes into the details of its transition, beside failed criteria and warnings."""

BASIS = "basis"
"""The key in those details that says what the verdict was made from."""

_DECIDED = (State.DISCOVERED, State.INVERTIBLE, State.NOT_INVERTIBLE)
_DECIDED_FROM = (None, State.DISCOVERED, State.INVERTIBLE, State.NOT_INVERTIBLE, State.PREPROCESSED)


@dataclass(frozen=True, slots=True)
class Basis:
    """What verdicts were made from: the files of bronze written by a moment (UTC), and the rules.

    ``files`` is a fingerprint of their names, so that it shows when one of them is gone.
    """

    known_at: datetime
    files: str
    rule_version: str

    @classmethod
    def from_details(cls, details: Mapping[str, Any]) -> Self | None:
        """From the details of a transition; None where they do not say."""
        content = details.get(BASIS)
        if not isinstance(content, dict):
            return None
        return cls(datetime.fromisoformat(content["known_at"]), content["files"], content["rule_version"])

    def as_details(self) -> dict[str, Any]:
        """As it stands in the details of a transition."""
        known_at = self.known_at.isoformat()
        return {BASIS: {"known_at": known_at, "files": self.files, "rule_version": self.rule_version}}


def files_fingerprint(files: Mapping[str, Iterable[Path]], tables: Iterable[str]) -> str:
    """Of the names of the files of ``tables``; those that only carry a schema do not count."""
    names = sorted(
        f"{table}/{path.name}"
        for table in tables
        for path in files[table]
        if not path.name.startswith("0-schema-")
    )
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def verdict_of(row: Mapping[str, Any]) -> Verdict:
    """A row of ``op_verdicts`` as the ledger takes it."""
    return Verdict(
        op_id=row["op_id"],
        has_datasets=row["has_datasets"],
        is_complete=row["is_complete"],
        is_invertible=row["is_invertible"],
        failed_criteria=tuple(row["failed_criteria"] or ()),
        warnings=tuple(row["warnings"] or ()),
        inputs_hash=row["inputs_hash"],
        rule_version=row["rule_version"],
        details={name: row[name] for name in FACTS},
    )


def is_decision(step: Transition) -> bool:
    """Whether a verdict made this step, and no person, retry or hand-over."""
    return (
        step.to_state in _DECIDED and step.from_state in _DECIDED_FROM and "failed_criteria" in step.details
    )
