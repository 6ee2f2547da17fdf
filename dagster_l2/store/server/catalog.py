"""What each query and the mutation of the store mean over the records held here.

Requests come in coerced and leave as records; GraphQL is in ``engine``, the public search in ``public``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphql import GraphQLError

from dagster_l2.store.errors import StoreError
from dagster_l2.store.server import records as names
from dagster_l2.store.server.engine import Engine, Resolver
from dagster_l2.store.server.frames import FrameSpace
from dagster_l2.store.server.inversions import DuplicateKey, Inversions
from dagster_l2.store.server.records import RecordSet, Row
from dagster_l2.store.server.search import BadRequest, Table
from dagster_l2.store.server.standins import STAND_INS

CREATE = "createL2InversionInventory"
COUNT = "datasetInventoriesRecordCount"
INVERSIONS = "l2Inversions"

_TYPES = {
    names.DATASETS: "DatasetInventoryViewResponse",
    names.HISTORY: "DatasetInventoryViewResponse",
    names.EXPERIMENTS: "ExperimentDescriptionResponse",
    names.CANDIDATES: "ProcessingCandidateViewResponse",
    names.FRAMES: "FrameInventoryResponse",
    names.OBJECTS: "ObjectInventoryResponse",
}
_STATUSES = "datasetInventoryStatuses"
_STATUS_TEXTS = {
    "ACTIVE": "The dataset can be searched and downloaded.",
    "DEPRECATED": "A newer dataset of the same product replaces it.",
    "REMOVED": "The dataset is no longer kept.",
}


class Catalog:
    """Records, ready to be asked.

    Parameters
    ----------
    records
        What is served.
    inversions
        Where published inversions are kept.
    frames
        Frames beside those that are records already.
    inclusive_bounds, unstable_ties
        See `Table`.
    strict_nulls
        See `Engine`.
    """

    def __init__(
        self,
        records: RecordSet,
        inversions_file: Path | str,
        *,
        frames: FrameSpace | None = None,
        inclusive_bounds: bool = True,
        unstable_ties: bool = False,
        strict_nulls: bool = False,
    ) -> None:
        self.engine = Engine(strict_nulls=strict_nulls)
        self.inversions = Inversions(inversions_file)
        self.is_strict_json = records.is_strict_json
        self._inclusive = inclusive_bounds
        self._frames = frames
        self._tables = {
            name: Table(
                records.lists[name],
                self.engine.types_of(type_name),
                STAND_INS.get(type_name),
                inclusive=inclusive_bounds,
                unstable=unstable_ties,
            )
            for name, type_name in _TYPES.items()
        }

    @property
    def datasets(self) -> Table:
        """The dataset records."""
        return self._tables[names.DATASETS]

    def resolvers(self, *, count_offset: int = 0, is_empty: bool = False) -> dict[str, Resolver]:
        """One resolver for each query and mutation.

        Parameters
        ----------
        count_offset
            Added to the record count, to play a store that cannot count.
        is_empty
            Answer as a store without records.
        """
        out: dict[str, Resolver] = {
            name: self._empty if is_empty else self._listing(table) for name, table in self._tables.items()
        }

        def count(arguments: Mapping[str, Any]) -> Row:
            found = 0 if is_empty else _asked(self.datasets.count, arguments)
            return {"recordCount": max(0, found + count_offset)}

        if self._frames is not None and not is_empty:
            out[names.FRAMES] = self._made_frames
        return {
            **out,
            COUNT: count,
            _STATUSES: self._statuses,
            INVERSIONS: self._inversions,
            CREATE: self._create,
        }

    def _listing(self, table: Table) -> Resolver:
        return lambda arguments: _asked(table.select, arguments)

    def object_file(self, bucket: str, key: str) -> Path | None:
        """The file of an object; None when there is none.

        Raises
        ------
        StoreError
            When there should be one and it can't be made.
        """
        return self._frames.file(bucket, key) if self._frames else None

    def _made_frames(self, arguments: Mapping[str, Any]) -> Any:
        assert self._frames is not None
        try:
            rows = self._frames.listing(arguments.get("filterParams") or {})
        except (BadRequest, StoreError) as error:
            raise GraphQLError(str(error)) from None
        stored = self._tables[names.FRAMES].rows
        table = Table([*stored, *rows], self.engine.types_of(_TYPES[names.FRAMES]), inclusive=self._inclusive)
        return _asked(table.select, arguments)

    def _empty(self, _arguments: Mapping[str, Any]) -> list[Row]:
        return []

    def _statuses(self, arguments: Mapping[str, Any]) -> Any:
        by_status: dict[str, list[Row]] = {code: [] for code in _STATUS_TEXTS}
        for row in self.datasets.rows:
            stored = row.get("status")
            by_status.get(stored if isinstance(stored, str) else "ACTIVE", []).append(row)
        rows = [
            {
                "datasetInventoryStatusId": number,
                "datasetInventoryStatusCode": code,
                "datasetInventoryStatusDescription": text,
                "createDate": "2020-01-01T00:00:00",
                "updateDate": None,
                names.DATASETS: by_status[code],
            }
            for number, (code, text) in enumerate(_STATUS_TEXTS.items(), start=1)
        ]
        table = Table(rows, self.engine.types_of("DatasetInventoryStatusResponse"))
        return _asked(table.select, arguments)

    def _inversions(self, arguments: Mapping[str, Any]) -> Any:
        try:
            rows = self.inversions.all()
        except StoreError as error:
            raise GraphQLError(str(error)) from None
        table = Table(rows, self.engine.types_of("L2InversionInventoryResponse"), inclusive=self._inclusive)
        return _asked(table.select, arguments)

    def _create(self, arguments: Mapping[str, Any]) -> Row:
        try:
            return self.inversions.create(arguments["createParams"])
        except (DuplicateKey, StoreError) as error:
            raise GraphQLError(str(error)) from None


def _asked(ask: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        return ask(arguments.get("filterParams") or {})
    except BadRequest as error:
        raise GraphQLError(str(error)) from None
