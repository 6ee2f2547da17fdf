"""The records that the local store serves, read from JSON dumps.

A record stays as it was dumped, garbage and all. What the schema wants and a dump lacks is in ``standins``;
how records are searched is in ``search``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson

from dagster_l2.store.errors import StoreError

Row = dict[str, Any]

DATASETS = "datasetInventories"
HISTORY = "datasetInventoryHistory"
EXPERIMENTS = "experimentDescriptions"
CANDIDATES = "processingCandidates"
FRAMES = "frameInventories"
OBJECTS = "objectInventories"

# What tells two versions of one record apart from two records, by list.
_KEYS = {
    DATASETS: "datasetId",
    EXPERIMENTS: "experimentId",
    CANDIDATES: "observingProgramExecutionId",
    FRAMES: "inventoryId",
    OBJECTS: "inventoryId",
}


class RecordsUnreadable(StoreError):
    """A dump is missing, or is not what it should be."""


@dataclass
class RecordSet:
    """Everything a local store serves except inversions, by the name of the query that lists it.

    Parameters
    ----------
    lists
        Records by list name: ``datasetInventories``, ``datasetInventoryHistory`` (earlier versions),
        ``experimentDescriptions``, ``processingCandidates``, ``frameInventories``, ``objectInventories``.
    is_strict_json
        False when a record holds what only lenient JSON can say (NaN, a lone surrogate), so that the server
        answers with the slower writer that can say it too.
    """

    lists: dict[str, list[Row]] = field(default_factory=dict)
    is_strict_json: bool = True

    def __post_init__(self) -> None:
        for name in (*_KEYS, HISTORY):
            self.lists.setdefault(name, [])

    @property
    def datasets(self) -> list[Row]:
        """Dataset records, the latest version of each."""
        return self.lists[DATASETS]

    @property
    def history(self) -> list[Row]:
        """Earlier versions of dataset records, oldest first."""
        return self.lists[HISTORY]

    @property
    def experiments(self) -> list[Row]:
        """Experiment descriptions."""
        return self.lists[EXPERIMENTS]

    @property
    def processing_candidates(self) -> list[Row]:
        """Processing candidates."""
        return self.lists[CANDIDATES]

    @classmethod
    def load(cls, paths: Iterable[Path | str]) -> Self:
        """Read dumps.

        Of a dataset in several files the one latest in sorted path order is served and the earlier ones
        are its history. JSON files of another shape are passed over. Experiment descriptions are also
        looked for in the folder above, where the real dumps keep them beside the folders of their dates.

        Parameters
        ----------
        paths
            Files, or folders that are searched recursively for ``*.json``.

        Raises
        ------
        RecordsUnreadable
            When a path is missing, a file is not JSON, or nothing in it is a dump.
        """
        given = [Path(path) for path in paths]
        files = _dump_files(given)
        out = cls()
        dumps = [dump for path in files if (dump := out._read(path)) is not None]
        if not dumps:
            named = " and ".join(str(path) for path in given) or "(no path)"
            raise RecordsUnreadable(
                f"{named} holds no dump of records; set L2_STORE_RECORDS to a folder with JSON dumps."
            )
        if not any(EXPERIMENTS in dump for dump in dumps):
            dumps += [{EXPERIMENTS: dump[EXPERIMENTS]} for dump in out._descriptions_above(given)]
        for name in _KEYS:
            out._keep(name, [record for dump in dumps for record in dump.get(name, ())])
        return out

    def _read(self, path: Path) -> dict[str, list[Row]] | None:
        """The lists of one dump; None for JSON of another shape."""
        try:
            raw = path.read_bytes()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RecordsUnreadable(f"The records file {path} cannot be read: {reason}.") from None
        try:
            content = orjson.loads(raw)
        except orjson.JSONDecodeError:
            try:
                content = json.loads(raw)
            except (ValueError, RecursionError):
                raise RecordsUnreadable(
                    f"The records file {path} is not JSON; remove it or dump it again."
                ) from None
            self.is_strict_json = False
        data = content.get("data") if isinstance(content, dict) else None
        if not isinstance(data, dict):
            return None
        lists = {name: data[name] for name in _KEYS if isinstance(data.get(name), list)}
        return lists or None

    def _descriptions_above(self, given: list[Path]) -> list[dict[str, list[Row]]]:
        folders = {(path if path.is_dir() else path.parent).resolve() for path in given}
        candidates = {
            file
            for folder in folders
            for place in (folder, folder.parent)
            for file in place.glob("*experiment*.json")
        }
        found = []
        for file in sorted(candidates):
            try:
                dump = self._read(file)
            except RecordsUnreadable:
                continue  # nobody asked for this file
            if dump and EXPERIMENTS in dump:
                found.append(dump)
        return found

    def _keep(self, name: str, records: list[Any]) -> None:
        """Keep the last version of each record; one without a usable key is a record of its own."""
        latest: dict[object, Row] = {}
        for number, record in enumerate(records):
            if not isinstance(record, dict):
                continue  # not even a record: there is nothing to select fields from
            key = record.get(_KEYS[name])
            key = key if isinstance(key, str) else number
            earlier = latest.pop(key, None)
            if earlier is not None and name == DATASETS:
                self.history.append(earlier)
            latest[key] = record
        self.lists[name] = list(latest.values())


def _dump_files(paths: Iterable[Path]) -> list[Path]:
    files: set[Path] = set()
    for path in paths:
        if path.is_dir():
            files.update(file for file in path.rglob("*.json") if file.is_file())
        elif path.is_file():
            files.add(path)
        else:
            raise RecordsUnreadable(
                f"The records path {path} does not exist; set L2_STORE_RECORDS to a folder or file of dumps."
            )
    return sorted(files)
