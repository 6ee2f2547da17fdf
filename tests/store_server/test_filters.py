"""Filters, bounds, order and pages of the dataset query, and the filters of the others."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from dagster_l2.store.server import RecordSet
from tests.store_server.conftest import Store

A = {
    "datasetId": "AAAAA",
    "createDate": "2024-01-01T00:00:00",
    "updateDate": "2024-06-01T00:00:00",
    "startTime": "2023-01-01T00:00:00Z",
    "endTime": "2023-01-01T01:00:00",
    "embargoEndDate": "2025-01-01T00:00:00",
    "primaryProposalId": "pid_1_1",
    "primaryExperimentId": "eid_1_1",
    "observingProgramExecutionId": "eid_1_1_op'; drop table x; --",
    "instrumentProgramExecutionId": "id.1.1",
    "productId": "L1-A",
    "instrumentName": "VISP",
    "status": "DEPRECATED",
    "isEmbargoed": True,
    "hasAllStokes": True,
    "bucket": "data",
    "spectralLines": ["Fe I (630.15 nm)", "Fe I (630.25 nm)"],
    "targetTypes": ["sunspot"],
    "wavelengthMin": 630,
    "wavelengthMax": 631.5,
    "workflowName": "w",
    "workflowVersion": "1.0.0",
    "exposureTime": 12.5,
}
B = {
    "datasetId": "BBBBB",
    "createDate": "2024-01-01T00:00:00.000001",
    "primaryProposalId": "pid_2_2",
    "instrumentProgramExecutionId": "id.2.2",
    "instrumentName": "VBI",
    "wavelengthMin": 393,
    "wavelengthMax": 393,
    "exposureTime": 25,
}


@pytest.fixture
def store(serve_rows: Any) -> Store:
    found: Store = serve_rows(A, B)
    return found


@pytest.mark.parametrize(
    "params",
    [
        {"datasetIds": ["AAAAA", "nosuch"]},
        {"productIds": ["L1-A"]},
        {"primaryProposalIds": ["pid_1_1"]},
        {"primaryExperimentIds": ["eid_1_1"]},
        {"observingProgramExecutionId": "eid_1_1_op'; drop table x; --"},
        {"instrumentProgramExecutionId": "id.1.1"},
        {"instrumentNames": ["VISP"]},
        {"status": "DEPRECATED"},
        {"isEmbargoed": True},
        {"hasAllStokes": True},
        {"bucket": "data"},
        {"spectralLines": ["Fe I (630.25 nm)"]},
        {"targetTypes": ["plage", "sunspot"]},
        {"wavelengthRanges": [600.0, 630.0]},
        {"wavelengthRanges": [100.0, 200.0, 631.0, 700.0]},
        {"workflowName": "w"},
        {"workflowVersion": "1.0.0"},
        {"createDateMax": "2024-01-01T00:00:00"},
        {"createDateMin": "2023-12-31", "createDateMax": "2024-01-01T00:00:00.000000"},
        {"updateDateMin": "2024-05-31T23:59:59.999999", "updateDateMax": "2024-06-02T00:00:00Z"},
        {"startTimeMin": "2022-12-31T00:00:00", "startTimeMax": "2023-01-02T00:00:00"},
        {"endTimeMin": "2022-12-31T00:00:00"},
        {"embargoEndDateMax": "2025-01-02T00:00:00"},
        {"exposureTimeMin": 12.0, "exposureTimeMax": 13.0},
        {"instrumentNames": ["VISP"], "bucket": "data", "datasetIds": []},
    ],
    ids=lambda params: "+".join(params),
)
def test_each_filter_finds_the_one(store: Store, params: dict[str, Any]) -> None:
    assert store.ids(**params) == ["AAAAA"]
    assert store.count(**params) == 1


@pytest.mark.parametrize(
    "params",
    [{}, {"datasetIds": []}, {"instrumentNames": None}, {"spectralLines": [], "status": None}],
    ids=str,
)
def test_an_empty_list_or_null_is_no_filter(store: Store, params: dict[str, Any]) -> None:
    assert store.ids(**params) == ["AAAAA", "BBBBB"]
    assert store.count(**params) == 2


def test_stand_ins_can_be_searched(store: Store) -> None:
    assert store.ids(status="ACTIVE") == ["BBBBB"]
    assert store.ids(productIds=["standin-id.2.2-393.0"]) == ["BBBBB"]


def test_a_range_without_its_end_is_refused(store: Store) -> None:
    answer = store.answer("{ datasetInventories(filterParams: {wavelengthRanges: [630]}) { datasetId } }")
    assert "pairs" in answer["errors"][0]["message"]


@pytest.mark.parametrize("inclusive", [True, False])
def test_bounds_include_or_not_as_told(serve_rows: Any, inclusive: bool) -> None:
    store = serve_rows(A, B, inclusive_bounds=inclusive)
    edge = ["AAAAA"] if inclusive else []
    first = {"createDateMin": "2024-01-01T00:00:00", "createDateMax": "2024-01-01T00:00:00"}
    assert store.ids(**first) == edge
    assert store.count(**first) == len(edge)
    assert store.ids(createDateMin="2024-01-01T00:00:00") == [*edge, "BBBBB"]
    assert store.ids(createDateMax="2024-01-01T00:00:00") == edge
    assert store.ids(updateDateMin="2024-06-01T00:00:00") == edge
    assert store.ids(exposureTimeMax=12.5) == edge
    assert store.ids(createDateMin="2025-01-01T00:00:00", createDateMax="2020-01-01T00:00:00") == []


def _many(number: int) -> list[dict[str, Any]]:
    return [
        {"datasetId": f"{n:05d}", "createDate": f"2024-01-0{1 + n % 2}T00:00:00", "frameCount": n}
        for n in range(number)
    ]


def test_pages_cover_everything_once(serve_rows: Any) -> None:
    store = serve_rows(*_many(23))
    pages = [store.ids(pageSize=5, pageNumber=number, sortColumn="frameCount") for number in range(1, 7)]
    assert [len(page) for page in pages] == [5, 5, 5, 5, 3, 0]
    assert list(chain(*pages)) == [f"{n:05d}" for n in range(23)]
    assert len(store.ids()) == 23
    assert store.count(pageSize=5, pageNumber=3) == 23


def test_a_minus_sorts_descending(serve_rows: Any) -> None:
    store = serve_rows(*_many(4), {"datasetId": "NONE", "createDate": "2024-01-01T00:00:00"})
    assert store.ids(sortColumn="-frameCount") == ["00003", "00002", "00001", "00000", "NONE"]
    assert store.ids(sortColumn="frameCount")[-1] == "NONE"
    by_date = store.ids(sortColumn="-createDate")
    assert set(by_date[:2]) == {"00001", "00003"}


def test_unstable_ties_change_places_but_not_order(serve_rows: Any) -> None:
    rows = _many(40)
    store = serve_rows(*rows, unstable_ties=True)
    answers = [store.ids() for _ in range(5)]
    assert len({tuple(answer) for answer in answers}) > 1
    created = {row["datasetId"]: row["createDate"] for row in rows}
    for answer in answers:
        assert [created[item] for item in answer] == sorted(created.values())
    unique = [store.ids(sortColumn="frameCount") for _ in range(3)]
    assert unique[0] == unique[1] == unique[2]
    stable = serve_rows(*rows)
    assert stable.ids() == stable.ids()


def test_the_other_queries_filter(serve: Any) -> None:
    records = RecordSet(
        {
            "experimentDescriptions": [{"experimentId": "eid_1_1"}, {"experimentId": "eid_1_2"}],
            "processingCandidates": [
                {"processingCandidateId": 1, "plannedRecipeCount": None, "completeRecipeInstanceCount": 1},
                {"processingCandidateId": 2, "plannedRecipeCount": 4, "completeRecipeInstanceCount": 4},
                {"processingCandidateId": 3, "plannedRecipeCount": 4, "completeRecipeInstanceCount": 3},
            ],
            "frameInventories": [
                {"inventoryId": "f1", "datasetId": "AAAAA", "wavelength": 630.0},
                {"inventoryId": "f2", "datasetId": "BBBBB", "wavelength": 854.0},
            ],
            "objectInventories": [
                {"inventoryId": "o1", "objectType": "ASDF"},
                {"inventoryId": "o2", "objectType": "MOVIE"},
            ],
        }
    )
    store = serve(records)

    def found(query: str, filters: str, field: str) -> list[Any]:
        rows = store.data(f"{{ {query}(filterParams: {{{filters}}}) {{ {field} }} }}")[query]
        return [row[field] for row in rows]

    assert found("experimentDescriptions", 'experimentId: "eid_1_2"', "experimentId") == ["eid_1_2"]
    candidate = ("processingCandidates", "processingCandidateId")
    assert found(candidate[0], "isUnplanned: true", candidate[1]) == [1]
    less = "isCompleteRecipeInstanceCountLessThanPlanned"
    assert found(candidate[0], f"{less}: true", candidate[1]) == [3]
    assert found(candidate[0], f"{less}: false", candidate[1]) == [2]
    assert found("frameInventories", 'datasetId: "BBBBB"', "inventoryId") == ["f2"]
    assert found("frameInventories", "wavelengthMax: 700", "inventoryId") == ["f1"]
    assert found("frameInventories", 'inventoryIds: ["f1"]', "inventoryId") == ["f1"]
    assert found("objectInventories", 'objectType: "MOVIE"', "inventoryId") == ["o2"]
