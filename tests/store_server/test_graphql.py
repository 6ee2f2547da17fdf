"""GraphQL as a client meets it: selections, errors, nulls, tokens, bodies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dagster_l2.store.server import RecordSet, generate
from tests.store_server.conftest import Store

ROW = {"datasetId": "ABCDE", "createDate": "2024-01-01T00:00:00", "primaryProposalId": "pid_1_1"}


def test_aliases_fragments_directives_and_several_fields_in_one_query(serve_rows: Any) -> None:
    store = serve_rows({**ROW, "instrumentName": "VISP"})
    data = store.data(
        """
        query Two($withName: Boolean!) {
          mine: datasetInventories {
            __typename ...ids ... on DatasetInventoryViewResponse { when: createDate }
          }
          total: datasetInventoriesRecordCount { n: recordCount }
          kind: __typename
        }
        fragment ids on DatasetInventoryViewResponse {
          datasetId id: datasetId instrumentName @include(if: $withName)
        }
        """,
        {"withName": False},
    )
    assert data == {
        "mine": [
            {
                "__typename": "DatasetInventoryViewResponse",
                "datasetId": "ABCDE",
                "id": "ABCDE",
                "when": "2024-01-01T00:00:00",
            }
        ],
        "total": {"n": 1},
        "kind": "Query",
    }
    assert list(data["mine"][0]) == ["__typename", "datasetId", "id", "when"]


def test_operation_name_chooses(serve_rows: Any) -> None:
    store = serve_rows(ROW)
    query = "query A { a: __typename } query B { b: datasetInventories { datasetId } }"
    assert store.answer(query, operationName="B") == {"data": {"b": [{"datasetId": "ABCDE"}]}}
    assert "operation name" in store.answer(query)["errors"][0]["message"]
    assert "'C'" in store.answer(query, operationName="C")["errors"][0]["message"]


def test_literal_arguments_count_like_variables(serve_rows: Any) -> None:
    store = serve_rows(ROW, {**ROW, "datasetId": "FGHIJ", "createDate": "2024-02-01T00:00:00.500000"})
    query = '{ datasetInventories(filterParams: {createDateMin: "2024-01-15T00:00:00"}) { datasetId } }'
    assert store.data(query) == {"datasetInventories": [{"datasetId": "FGHIJ"}]}


def test_introspection_answers_beside_records(serve_rows: Any) -> None:
    query = (
        "query ($name: String!) { __type(name: $name) { fields { name } } datasetInventories { datasetId } }"
    )
    data = serve_rows(ROW).data(query, {"name": "DatasetInventoryRecordCountResponse"})
    assert data == {
        "__type": {"fields": [{"name": "recordCount"}]},
        "datasetInventories": [{"datasetId": "ABCDE"}],
    }


@pytest.mark.parametrize(
    ("query", "variables", "words"),
    [
        ("{ datasetInventories { nosuch } }", None, "Cannot query field 'nosuch'"),
        ("{ datasetInventories { datasetId", None, "Syntax Error"),
        ("{ datasetInventories }", None, "must have a selection"),
        ("{a" * 5000, None, "deep"),
        ("{ datasetInventories(filterParams: {nosuch: 1}) { datasetId } }", None, "nosuch"),
        (
            "query ($p: DatasetInventoriesRequest) { datasetInventories(filterParams: $p) { datasetId } }",
            {"p": {"createDateMin": "yesterday"}},
            "no DateTime",
        ),
        (
            "query ($p: DatasetInventoriesRequest) { datasetInventories(filterParams: $p) { datasetId } }",
            {"p": {"pageSize": "many"}},
            "Int cannot represent",
        ),
        ('{ datasetInventories(filterParams: {sortColumn: "nosuch"}) { datasetId } }', None, "nosuch"),
        ("{ datasetInventories(filterParams: {pageNumber: 0}) { datasetId } }", None, "from 1"),
        (
            '{ datasetInventories(filterParams: {investigatorUserIds: ["me"]}) { datasetId } }',
            None,
            "investigatorUserIds",
        ),
        ("{ datasetInventoryHistory { datasetId } }", None, "filterParams"),
    ],
)
def test_what_cannot_be_answered_is_an_error_inside_200(
    serve_rows: Any, query: str, variables: Any, words: str
) -> None:
    answer = serve_rows(ROW).answer(query, variables)
    assert answer.get("data") is None
    assert words in answer["errors"][0]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"query=x",
        b"[]",
        b'{"query": 1}',
        b"{}",
        b'{"query": "{__typename}", "variables": []}',
        b'{"query": "{__typename}", "operationName": 7}',
        b"\xff\xfe",
    ],
)
def test_a_body_that_is_no_request_is_400(serve: Callable[..., Store], body: bytes) -> None:
    response = serve().http.post("/graphql", content=body)
    assert response.status_code == 400
    assert response.json()["errors"][0]["message"]


def test_only_post(serve: Callable[..., Store]) -> None:
    assert serve().http.get("/graphql").status_code == 405


def test_the_token_is_asked_for_raw_and_the_public_search_is_open(serve: Callable[..., Store]) -> None:
    store = serve(generate(2, seed=1), token="s3cret-é")

    def status(headers: dict[Any, Any]) -> int:
        return store.http.post("/graphql", json={"query": "{__typename}"}, headers=headers).status_code

    assert status({b"Authorization": "s3cret-é".encode()}) == 200
    assert status({}) == 401
    assert status({"Authorization": ""}) == 401
    assert status({b"Authorization": "Bearer s3cret-é".encode()}) == 401
    assert status({b"Authorization": b"\xff"}) == 401
    refused = store.http.post("/graphql", json={"query": "{__typename}"})
    assert refused.headers["content-type"] == "application/json"
    assert "s3cret" not in refused.text
    assert store.http.get("/datasets/v1").status_code == 200


def test_garbage_is_served_as_it_is(serve_rows: Any) -> None:
    bad: list[dict[str, Any]] = [
        {**ROW, "frameCount": "many"},
        {**ROW, "datasetId": "BADDY", "createDate": "yesterday"},
        {**ROW, "datasetId": None},
        {**ROW, "datasetId": None, "boundingBox": ["a list"]},
        {**ROW, "datasetId": "FLOAT", "wavelengthMin": float("nan"), "health": "good"},
        {**ROW, "datasetId": "\ud800", "aoLocked": 2**80},
    ]
    store = serve_rows(*bad)
    query = (
        "{ datasetInventories { datasetId createDate frameCount boundingBox wavelengthMin health aoLocked } }"
    )
    rows = store.data(query)["datasetInventories"]
    wanted: list[dict[str, Any]] = [{name: row.get(name) for name in rows[0]} for row in bad]
    for row in (*rows, *wanted):
        row["wavelengthMin"] = str(row["wavelengthMin"])
    assert sorted(rows, key=json.dumps) == sorted(wanted, key=json.dumps)
    assert store.count() == 6
    for column in ("createDate", "-frameCount", "boundingBox", "-wavelengthMin", "health", "-aoLocked"):
        assert len(store.ids(sortColumn=column)) == 6
    # No window of createDate holds a record whose createDate is no moment.
    assert store.count(createDateMin="2000-01-01T00:00:00") == 5


def test_null_in_a_never_null_field(serve_rows: Any) -> None:
    query = "{ datasetInventories { datasetId bucket } }"
    row = {"datasetId": "ABCDE", "bucket": None}
    assert serve_rows({**ROW, **row}).data(query) == {"datasetInventories": [row]}
    strict = serve_rows({**ROW, **row}, strict_nulls=True)
    answer = strict.answer(query)
    assert answer["data"] is None
    assert answer["errors"][0]["path"] == ["datasetInventories", 0, "bucket"]
    assert "DatasetInventoryViewResponse.bucket" in answer["errors"][0]["message"]
    assert strict.data("{ datasetInventories { datasetId boundingBox } }")


def test_strict_nulls_hold_over_everything_generated(serve: Callable[..., Store]) -> None:
    store = serve(generate(30, seed=2), strict_nulls=True)
    engine_types = {
        "datasetInventories": "DatasetInventoryViewResponse",
        "experimentDescriptions": "ExperimentDescriptionResponse",
        "processingCandidates": "ProcessingCandidateViewResponse",
    }
    for query, type_name in engine_types.items():
        described = store.data(f'{{ __type(name: "{type_name}") {{ fields {{ name }} }} }}')
        fields = " ".join(field["name"] for field in described["__type"]["fields"])
        assert store.data(f"{{ {query} {{ {fields} }} }}")[query]


def test_statuses_list_their_datasets(serve_rows: Any) -> None:
    store = serve_rows(ROW, {**ROW, "datasetId": "OLDER", "status": "DEPRECATED"})
    query = (
        "{ datasetInventoryStatuses { datasetInventoryStatusCode datasetInventories { datasetId status } } }"
    )
    found = {
        row["datasetInventoryStatusCode"]: row["datasetInventories"]
        for row in store.data(query)["datasetInventoryStatuses"]
    }
    assert found == {
        "ACTIVE": [{"datasetId": "ABCDE", "status": "ACTIVE"}],
        "DEPRECATED": [{"datasetId": "OLDER", "status": "DEPRECATED"}],
        "REMOVED": [],
    }


def test_health_and_the_request_log(serve: Callable[..., Store]) -> None:
    records = generate(3, seed=1)
    store = serve(records)
    store.count()
    store.answer("{ a: datasetInventories { datasetId } b: l2Inversions { inversionId } }")
    assert store.http.get("/healthz").json() == {"status": "ok", "datasets": len(records.datasets)}
    assert [names for _, names in store.app.state.requests] == [
        ("datasetInventoriesRecordCount",),
        ("datasetInventories", "l2Inversions"),
    ]


def test_an_empty_store_answers(serve: Callable[..., Store]) -> None:
    store = serve(RecordSet())
    assert store.ids() == []
    assert store.count() == 0
    assert store.data("{ frameInventories { inventoryId } objectInventories { inventoryId } }") == {
        "frameInventories": [],
        "objectInventories": [],
    }
