"""The client of the metadata store: GraphQL, and the public dataset search behind the same class.

It asks and hands out records as the store sent them; how a request travels is in ``exchange``, what a field
holds in ``fields``, how records become columns in ``page`` and ``parse``. It knows no windows and no ledger.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import orjson

from dagster_l2.store.errors import DuplicateInversion, StoreAnswerInvalid, StoreQueryError, StoreReadOnly
from dagster_l2.store.exchange import Exchange
from dagster_l2.store.fields import COUNT, DATASETS, EXPERIMENTS, PROCESSING_CANDIDATES, RecordType
from dagster_l2.store.pace import Pace
from dagster_l2.store.page import Record, read_page
from dagster_l2.store.wire import count_query, counted_query, selection, texts

INVERSION_FIELDS = (
    "inversionId",
    "primaryProposalId",
    "instrumentProgramExecutionId",
    "bucket",
    "asdfObjectKey",
    "datasetIds",
    "spectralLines",
    "createDate",
)

FRAME_FIELDS = (
    "inventoryId",
    "bucket",
    "objectKey",
    "observationDate",
    "frameStatus",
    "frameSize",
    "datasetId",
    "processingType",
)

_FRAME_PAGE = 1000
_PUBLIC_PATH = "/datasets/v1"


class StoreKind(enum.StrEnum):
    """Which of the two doors of the store is used."""

    GRAPHQL = "graphql"
    PUBLIC = "public"


class StoreClient:
    """Speak to one metadata store.

    Parameters
    ----------
    url
        Base address, with or without ``/graphql`` (or ``/datasets/v1``) at its end.
    token
        Sent raw in the ``Authorization`` header; never logged and never part of a message.
    kind
        ``graphql`` for the store itself, ``public`` for the read-only dataset search.
    timeout_s
        Seconds that one read may stall before the request counts as failed.
    attempts
        How often a request that may pass by itself is tried.
    patience_s
        Seconds during which a request that is turned down for load (429) is asked again; that uses up
        no try.
    pace
        Grants each request, and is told how it went. Without one a request waits only after a failure.

    Raises
    ------
    StoreError
        Every method raises one of its subclasses, with one sentence that names the store.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        kind: StoreKind | str = StoreKind.GRAPHQL,
        timeout_s: float = 60.0,
        attempts: int = 5,
        first_wait_s: float = 0.5,
        patience_s: float = 300.0,
        pace: Pace | None = None,
    ) -> None:
        self.kind = StoreKind(kind)
        self.url = url.rstrip("/").removesuffix("/graphql").removesuffix(_PUBLIC_PATH)
        self._exchange = Exchange(
            self.url,
            token=token,
            timeout_s=timeout_s,
            attempts=attempts,
            first_wait_s=first_wait_s,
            patience_s=patience_s,
            pace=pace,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"StoreClient({self.url!r}, kind={self.kind.value!r})"

    def close(self) -> None:
        """Close the connections."""
        self._exchange.http.close()

    @property
    def is_read_only(self) -> bool:
        """Whether inversions can be neither looked up nor published here."""
        return self.kind is StoreKind.PUBLIC

    # -- reading ------------------------------------------------------------------------------------------

    def datasets(
        self,
        filters: Mapping[str, Any] | None = None,
        *,
        page_size: int | None = None,
        page_number: int = 1,
        sort_column: str = "createDate",
    ) -> Sequence[Record]:
        """One page of dataset records, as sent. ``page_size=None`` asks for all in one page."""
        if self.kind is StoreKind.PUBLIC:
            results: list[Record] = self._search(filters, page_size or 300, page_number)["searchResults"]
            return results
        params = {
            **texts(filters),
            "pageSize": page_size,
            "pageNumber": page_number,
            "sortColumn": sort_column,
        }
        return self._records(DATASETS, "DatasetInventoriesRequest", params)

    def counted_datasets(self, filters: Mapping[str, Any]) -> tuple[Sequence[Record], int]:
        """All records of a filter in one page, and how many the store counts; one request for both.

        Only where the store is asked itself; the public search always answers in pages.
        """
        asked = texts(filters)
        page = {"pageSize": None, "pageNumber": 1, "sortColumn": "createDate"}
        variables = {"filterParams": {**asked, **page}, "countParams": asked}
        content = orjson.dumps({"query": counted_query(), "variables": variables})
        return self._exchange.persist(lambda: self._counted_page(content))

    def dataset_count(self, filters: Mapping[str, Any] | None = None) -> int:
        """How many dataset records the store says it holds for these filters."""
        if self.kind is StoreKind.PUBLIC:
            return int(self._search(filters, 1, 1)["recordCount"])
        return self._counted(self._graphql(count_query(), {"countParams": texts(filters)}))

    def experiments(self) -> Sequence[Record]:
        """All experiment descriptions; the public search has none of its own."""
        if self.kind is StoreKind.PUBLIC:
            return []
        return self._records(EXPERIMENTS, "ExperimentDescriptionsRequest", {})

    def processing_candidates(self) -> Sequence[Record]:
        """All processing candidates; the public search has none."""
        if self.kind is StoreKind.PUBLIC:
            return []
        return self._records(PROCESSING_CANDIDATES, "ProcessingCandidatesRequest", {})

    def frames(self, op_id: str, dataset_ids: Sequence[str]) -> list[Record]:
        """The level-1 frames of datasets of an OP, as far as the store lists them, all pages.

        The public search lists none.
        """
        if self.kind is StoreKind.PUBLIC:
            return []
        query = (
            "query ($filterParams: FrameInventoriesRequest)"
            f" {{ frameInventories(filterParams: $filterParams) {{ {' '.join(FRAME_FIELDS)} }} }}"
        )
        out: list[Record] = []
        for dataset_id in dataset_ids:
            seen: dict[str, Record] = {}
            page, sent = 0, _FRAME_PAGE
            while sent == _FRAME_PAGE:
                page += 1
                params = {
                    "observingProgramExecutionIds": [op_id],
                    "datasetId": dataset_id,
                    "processingType": "L1",
                    "pageSize": _FRAME_PAGE,
                    "pageNumber": page,
                }
                records = self._exchange.listed(
                    self._graphql(query, {"filterParams": params}), "frameInventories"
                )
                sent = len(records)
                # Ties that fall differently between pages send some twice.
                seen |= {str(record.get("objectKey")): record for record in records}
            out += seen.values()
        return out

    # -- inversions ---------------------------------------------------------------------------------------

    def inversions(
        self, inversion_id: str | None = None, dataset_ids: Sequence[str] | None = None
    ) -> list[Record]:
        """The published inversions with this id, or of these datasets, or all."""
        self._refuse_if_read_only()
        query = (
            "query ($filterParams: L2InversionInventoriesRequest)"
            f" {{ l2Inversions(filterParams: $filterParams) {{ {' '.join(INVERSION_FIELDS)} }} }}"
        )
        params: dict[str, Any] = {}
        if inversion_id is not None:
            params["inversionId"] = inversion_id
        if dataset_ids:
            params["datasetIds"] = list(dataset_ids)
        return self._exchange.listed(self._graphql(query, {"filterParams": params}), "l2Inversions")

    def create_inversion(self, params: Mapping[str, Any]) -> Record:
        """Create the inventory record of an inversion; there is no update and no delete.

        It is asked once: after a lost answer nobody knows whether it was created, so the caller looks
        with `inversions` before asking again.

        Raises
        ------
        DuplicateInversion
            When the store holds the id already.
        """
        self._refuse_if_read_only()
        query = (
            "mutation ($createParams: L2InversionInventory!)"
            " { createL2InversionInventory(createParams: $createParams)"
            f" {{ {' '.join(INVERSION_FIELDS)} }} }}"
        )
        try:
            data = self._graphql_once(query, {"createParams": dict(params)})
        except StoreQueryError as error:
            if "duplicate key" in str(error).lower():
                raise DuplicateInversion(
                    f"The store at {self.url} holds inversion {params.get('inversionId')} already."
                ) from None
            raise
        created = data.get("createL2InversionInventory")
        if not isinstance(created, dict):
            raise StoreAnswerInvalid(f"The store at {self.url} answered a create without a record.")
        return created

    def _refuse_if_read_only(self) -> None:
        if self.is_read_only:
            raise StoreReadOnly(
                "The public dataset search is read only: set L2_STORE_KIND=graphql to claim and publish."
            )

    # -- one request --------------------------------------------------------------------------------------

    def _records(
        self, record_type: RecordType, input_type: str, params: Mapping[str, Any]
    ) -> Sequence[Record]:
        query = f"query ($filterParams: {input_type}) {{ {selection(record_type)} }}"
        content = orjson.dumps({"query": query, "variables": {"filterParams": dict(params)}})
        return self._exchange.persist(lambda: self._page(record_type, content))

    def _page(self, record_type: RecordType, content: bytes) -> Sequence[Record]:
        answer = self._exchange.send("POST", "/graphql", content=content)
        page = read_page(record_type, answer)
        return self._exchange.listed(self._exchange.data(answer), record_type.query) if page is None else page

    def _counted_page(self, content: bytes) -> tuple[Sequence[Record], int]:
        answer = self._exchange.send("POST", "/graphql", content=content)
        page = read_page(DATASETS, answer)
        if page is not None and page.counted is not None:
            return page, page.counted
        data = self._exchange.data(answer)
        return self._exchange.listed(data, DATASETS.query) if page is None else page, self._counted(data)

    def _counted(self, data: Mapping[str, Any]) -> int:
        answer = data.get(COUNT)
        count = answer.get("recordCount") if isinstance(answer, dict) else None
        if isinstance(count, bool) or not isinstance(count, int):
            raise StoreAnswerInvalid(f"The store at {self.url} answered a record count without a number.")
        return count

    def _graphql(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        return self._exchange.persist(lambda: self._graphql_once(query, variables))

    def _graphql_once(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        content = orjson.dumps({"query": query, "variables": variables})
        return self._exchange.data(self._exchange.send("POST", "/graphql", content=content))

    def _search(self, filters: Mapping[str, Any] | None, page_size: int, page_number: int) -> dict[str, Any]:
        params = {**texts(filters), "pageSize": page_size, "pageNumber": page_number}
        answer = self._exchange.persist(
            lambda: self._exchange.json(self._exchange.send("GET", _PUBLIC_PATH, params=params))
        )
        count, results = answer.get("recordCount"), answer.get("searchResults")
        if not isinstance(count, int) or not isinstance(results, list):
            raise StoreAnswerInvalid(
                f"The dataset search at {self.url} answered without recordCount and results."
            )
        return answer
