"""The documents of inverted observing programs beside gold: one file each, replaced when it says otherwise.

Made from gold after each build. Who serves them reads here: what changed since a moment, and one by its OP.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dagster_l2.base.files import safe_name, write_json
from dagster_l2.pipeline.gold import ask_gold
from dagster_l2.publishing import etag, op_document

Document = dict[str, Any]

_TABLES = ("observing_programs", "datasets", "inversions", "op_history")
_WANTED = "op_id in (select op_id from inversions where inverted_at is not null)"


@dataclass(frozen=True, slots=True)
class Documents:
    """What a build changed: whose document is new or other, how many stayed, who has none any more."""

    changed: list[str]
    unchanged: int
    removed: list[str]


@dataclass(frozen=True, slots=True)
class Listing:
    """Documents as they are served.

    Parameters
    ----------
    etag
        Of all of them together.
    next_since
        What to ask with the next time to get what changed from now on; None without any document.
    """

    documents: list[Document]
    etag: str
    next_since: str | None


def documents_folder(lake: Path) -> Path:
    """Where the documents lie."""
    return lake / "gold" / "op_documents"


def write_documents(gold: Path, folder: Path) -> Documents:
    """Bring the documents to what gold says; one that says the same is left as it is.

    ``updated_at`` is when a document was written, and not when its content came about: a reader who asks for
    what changed since its last answer misses none, whenever scan and ledger told of it.

    Raises
    ------
    NoGold
        When there is no gold yet.
    """
    wanted, inverted = _documents(gold)
    there = _read_all(folder)
    changed = [op_id for op_id, document in wanted.items() if _differs(there.get(op_id), document)]
    folder.mkdir(parents=True, exist_ok=True)
    for op_id in changed:
        # Its own moment for each, taken late: a reader who looks between two must not pass over the second.
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        write_json(_path(folder, op_id), {**wanted[op_id], "updated_at": now})
    # An OP whose datasets the store no longer has keeps its last document.
    removed = sorted(there.keys() - inverted)
    for op_id in removed:
        _path(folder, op_id).unlink(missing_ok=True)
    return Documents(changed, len(wanted) - len(changed), removed)


def list_documents(folder: Path, *, since: str | None = None) -> Listing:
    """The documents that were written after ``since``, oldest change first; all of them without it.

    Parameters
    ----------
    since
        ``next_since`` of an earlier answer, or any moment in ISO form; without a zone it is UTC.

    Raises
    ------
    ValueError
        When ``since`` is no moment.
    """
    after = None if since is None else _moment(since)
    every = sorted(_read_all(folder).values(), key=lambda document: str(document["updated_at"]))
    newest = str(every[-1]["updated_at"]) if every else None
    chosen = [document for document in every if after is None or _moment(document["updated_at"]) > after]
    together = hashlib.sha256("".join(etag(document) for document in chosen).encode()).hexdigest()
    return Listing(chosen, together, newest)


def read_document(folder: Path, op_id: str) -> Document | None:
    """The document of one OP; None when it was not inverted, or not before gold was built."""
    return _read(_path(folder, op_id))


def _documents(gold: Path) -> tuple[dict[str, Document], set[str]]:
    """The documents by OP, and every OP that was inverted."""
    rows: dict[str, dict[str, list[Mapping[str, Any]]]] = {name: defaultdict(list) for name in _TABLES}
    for name in _TABLES:
        with ask_gold(gold, f"select * from {name} where {_WANTED}") as answer:  # noqa: S608 - our own tables
            for row in answer.rows():
                rows[name][row["op_id"]].append(row)
    documents = {
        op_id: op_document(
            found[0], rows["datasets"][op_id], rows["inversions"][op_id], rows["op_history"][op_id]
        )
        for op_id, found in sorted(rows["observing_programs"].items())
    }
    return documents, set(rows["inversions"])


def _differs(there: Document | None, wanted: Document) -> bool:
    return there is None or etag(there) != etag(wanted)


def _path(folder: Path, op_id: str) -> Path:
    return folder / f"{safe_name(op_id)}.json"


def _read_all(folder: Path) -> dict[str, Document]:
    found = (_read(path) for path in sorted(folder.glob("*.json")))
    return {document["op_id"]: document for document in found if document is not None}


def _read(path: Path) -> Document | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # damaged: it is written again with the next gold
    return document if isinstance(document, dict) and {"op_id", "updated_at"} <= document.keys() else None


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
