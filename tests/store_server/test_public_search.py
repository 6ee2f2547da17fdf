"""The public dataset search: the same records, without stand-ins and without a token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dagster_l2.store.server import generate
from tests.store_server.conftest import Store

ROW = {"datasetId": "ABCDE", "createDate": "2024-01-01T00:00:00", "unknownField": {"kept": [1]}}


def test_records_are_served_as_they_are(serve_rows: Any) -> None:
    store = serve_rows(ROW)
    assert store.http.get("/datasets/v1").json() == {"recordCount": 1, "searchResults": [ROW]}


def test_filters_pages_and_dates(serve: Callable[..., Store]) -> None:
    records = generate(40, seed=3)
    store = serve(records)

    def search(**params: Any) -> Any:
        return store.http.get("/datasets/v1", params=params).json()

    everything = search()
    assert everything["recordCount"] == len(records.datasets)
    assert len(everything["searchResults"]) == min(300, len(records.datasets))
    second = search(pageSize=7, pageNumber=2)
    assert second["searchResults"] == everything["searchResults"][7:14]
    assert second["recordCount"] == everything["recordCount"]
    proposals = sorted({row["primaryProposalId"] for row in records.datasets})[:2]
    wanted = sum(row["primaryProposalId"] in proposals for row in records.datasets)
    assert search(primaryProposalIds=proposals)["recordCount"] == wanted
    assert search(primaryProposalIds=",".join(proposals))["recordCount"] == wanted
    visp = search(instrumentNames="VISP", hasAllStokes="True", pageSize=1000)["searchResults"]
    assert visp
    assert {(row["instrumentName"], row["stokesParameters"]) for row in visp} == {("VISP", "IQUV")}
    middle = everything["searchResults"][20]["createDate"]
    assert search(createDateMax=f"{middle}Z")["recordCount"] == 21
    assert search(createDateMin=middle)["recordCount"] == everything["recordCount"] - 20
    overlapping = search(wavelengthRanges=[629, 631])["searchResults"]
    assert {row["instrumentName"] for row in overlapping} == {"VISP"}


@pytest.mark.parametrize("query", ["nosuch=1", "pageSize=ten", "createDateMin=yesterday", "pageNumber=0"])
def test_a_wrong_parameter_is_400_with_a_sentence(serve: Callable[..., Store], query: str) -> None:
    response = serve().http.get(f"/datasets/v1?{query}")
    assert response.status_code == 400
    assert response.json()["message"].endswith(".")


def test_search_values(serve: Callable[..., Store]) -> None:
    store = serve(generate(20, seed=1))
    answer = store.http.get("/datasets/v1/searchValues").json()
    values = {item["parameterName"]: item["values"] for item in answer["parameterValues"]}
    assert {"VBI", "VISP"} <= set(values["instrumentNames"]["categoricalValues"])
    assert values["startTimeMin"]["minValue"] < values["endTimeMax"]["maxValue"]
    assert 0 < values["exposureTimeMin"]["minValue"] < values["exposureTimeMax"]["maxValue"]
