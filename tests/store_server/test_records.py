"""Records from dumps: which files count, which version is served, what is filled in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dagster_l2.store.server import RecordSet, RecordsUnreadable
from tests.conftest import DATES
from tests.store_server.conftest import Store


def dump(path: Path, **lists: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"data": lists}), encoding="utf-8")
    return path


def row(dataset_id: Any, **more: Any) -> dict[str, Any]:
    return {"datasetId": dataset_id, "createDate": "2024-01-01T00:00:00", **more}


def test_the_later_file_wins_and_the_earlier_is_history(serve: Callable[..., Store], tmp_path: Path) -> None:
    dump(tmp_path / "2025-01-01/a.json", datasetInventories=[row("A", bucket="one", productId="P")])
    dump(tmp_path / "2025-02-01/a.json", datasetInventories=[row("A", bucket="two"), row("B")])
    dump(tmp_path / "2025-03-01/deep/a.json", datasetInventories=[row("A", bucket="three")])
    store = serve(RecordSet.load([tmp_path]))
    assert store.data("{ datasetInventories { datasetId bucket } }")["datasetInventories"] == [
        {"datasetId": "B", "bucket": None},
        {"datasetId": "A", "bucket": "three"},
    ]
    query = '{ datasetInventoryHistory(filterParams: {datasetId: "A"}) { bucket } }'
    assert store.data(query)["datasetInventoryHistory"] == [{"bucket": "two"}, {"bucket": "one"}]
    query = '{ datasetInventoryHistory(filterParams: {productId: "P"}) { bucket } }'
    assert store.data(query)["datasetInventoryHistory"] == [{"bucket": "one"}]


def test_records_without_a_usable_id_are_all_kept(tmp_path: Path) -> None:
    file = dump(tmp_path / "a.json", datasetInventories=[row(None), row(None), row(7), row(7), "no record"])
    assert [found["datasetId"] for found in RecordSet.load([file]).datasets] == [None, None, 7, 7]


def test_other_lists_and_other_shapes(tmp_path: Path) -> None:
    dump(
        tmp_path / "a.json",
        processingCandidates=[{"observingProgramExecutionId": "op"}],
        frameInventories=[{"inventoryId": "f"}],
        objectInventories=[{"inventoryId": "o"}],
    )
    (tmp_path / "schema_types.json").write_text('{"Query": {"fields": {}}}', encoding="utf-8")
    (tmp_path / "list.json").write_text("[1, 2]", encoding="utf-8")
    (tmp_path / "null.json").write_text('{"data": null}', encoding="utf-8")
    (tmp_path / "notes.txt").write_text("not JSON", encoding="utf-8")
    records = RecordSet.load([tmp_path])
    assert records.processing_candidates == [{"observingProgramExecutionId": "op"}]
    assert records.lists["frameInventories"] == [{"inventoryId": "f"}]
    assert records.lists["objectInventories"] == [{"inventoryId": "o"}]
    assert records.datasets == []


def test_experiment_descriptions_lie_one_folder_above(tmp_path: Path) -> None:
    dump(tmp_path / "experiment_descriptions.json", experimentDescriptions=[{"experimentId": "eid_1_1"}])
    (tmp_path / "experiment_broken.json").write_text("{", encoding="utf-8")
    file = dump(tmp_path / "2025-01-01/a.json", datasetInventories=[row("A")])
    for given in (file.parent, file):
        assert RecordSet.load([given]).experiments == [{"experimentId": "eid_1_1"}]
    dump(file.parent / "experiment_own.json", experimentDescriptions=[{"experimentId": "eid_2_2"}])
    assert RecordSet.load([file.parent]).experiments == [{"experimentId": "eid_2_2"}]


@pytest.mark.parametrize("content", ["", "{", "<html></html>", '{"data": {"datasetInventories": [}}'])
def test_a_file_that_is_not_json_is_named(tmp_path: Path, content: str) -> None:
    dump(tmp_path / "good.json", datasetInventories=[row("A")])
    (tmp_path / "bad.json").write_text(content, encoding="utf-8")
    with pytest.raises(RecordsUnreadable, match=r"bad\.json is not JSON") as error:
        RecordSet.load([tmp_path])
    assert "\n" not in str(error.value)


def test_a_missing_path_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordsUnreadable, match="nowhere does not exist"):
        RecordSet.load([tmp_path / "nowhere"])
    with pytest.raises(RecordsUnreadable, match="holds no dump"):
        RecordSet.load([tmp_path])


ALL = (
    "datasetId datasetInventoryId productId status contributingProposalIds contributingExperimentIds"
    " targetTypes proposalInvestigators frameCount originalFrameCount recipeId recipeInstanceId recipeRunId"
)


def test_stand_ins(serve_rows: Any) -> None:
    bare = row("A", primaryProposalId="pid_1_1", primaryExperimentId="eid_1_1", frameCount=7)
    known = row(
        "B", instrumentProgramExecutionId="id.1.2", wavelengthMin=630.2392, status="REMOVED", recipeId=5
    )
    store = serve_rows(bare, known, row("C", instrumentProgramExecutionId="id.1.2", wavelengthMin=393))
    a, b, c = store.data(f"{{ datasetInventories {{ {ALL} }} }}")["datasetInventories"]
    assert a.pop("datasetInventoryId") > 0
    assert a == {
        "datasetId": "A",
        "productId": "standin-A",
        "status": "ACTIVE",
        "contributingProposalIds": ["pid_1_1"],
        "contributingExperimentIds": ["eid_1_1"],
        "targetTypes": [],
        "proposalInvestigators": [],
        "frameCount": 7,
        "originalFrameCount": 7,
        "recipeId": 0,
        "recipeInstanceId": 0,
        "recipeRunId": 0,
    }
    assert (b["productId"], b["status"], b["recipeId"]) == ("standin-id.1.2-630.2", "REMOVED", 5)
    assert c["productId"] == "standin-id.1.2-393.0"
    assert store.http.get("/datasets/v1").json()["searchResults"][0] == bare


def test_stand_ins_depend_on_the_record_alone(serve: Callable[..., Store], tmp_path: Path) -> None:
    rows = [row(name, primaryProposalId="pid_1_1", wavelengthMin=393) for name in "ABC"]
    later = [{**item, "updateDate": "2025-01-01T00:00:00"} for item in reversed(rows)]
    answers = []
    for number, content in enumerate((rows, later)):
        file = dump(tmp_path / f"{number}.json", datasetInventories=content)
        store = serve(RecordSet.load([file]))
        found = store.data(f"{{ datasetInventories {{ {ALL} }} }}")["datasetInventories"]
        answers.append(sorted(found, key=lambda item: str(item["datasetId"])))
    assert answers[0] == answers[1]


def test_the_real_dumps(serve: Callable[..., Store], real_records: Path) -> None:
    sizes = {date: len(RecordSet.load([real_records / date]).datasets) for date in DATES}
    assert sizes == {"2025-05-08": 360, "2025-06-25": 360, "2025-10-23": 508}
    last = RecordSet.load([real_records / DATES[-1]])
    assert len(last.experiments) == 199
    store = serve(last, strict_nulls=True)
    fields = "datasetId createDate productId status originalFrameCount primaryProposalId bucket recipeId"
    assert len(store.data(f"{{ datasetInventories {{ {fields} }} }}")["datasetInventories"]) == 508
    fields = "experimentDescriptionId experimentId createDate experimentDescription"
    found = store.data(f"{{ experimentDescriptions {{ {fields} }} }}")["experimentDescriptions"]
    assert len(found) == 199
    assert sum("\\n" in (item["experimentDescription"] or "") for item in found) == 8
    assert store.count(primaryProposalIds=["pid_1_118"]) == 136


def test_all_dates_together_are_the_last_with_its_history(
    serve: Callable[..., Store], real_records: Path
) -> None:
    together, last = RecordSet.load([real_records]), RecordSet.load([real_records / DATES[-1]])
    assert sorted(together.datasets, key=lambda item: str(item["datasetId"])) == sorted(
        last.datasets, key=lambda item: str(item["datasetId"])
    )
    assert len(together.history) == 720
    store = serve(together)
    one = last.datasets[0]["datasetId"]
    query = "query ($p: DatasetInventoryHistory!) { datasetInventoryHistory(filterParams: $p) { datasetId } }"
    assert store.data(query, {"p": {"datasetId": one}}) == {
        "datasetInventoryHistory": [{"datasetId": one}] * 2
    }


def test_versions_of_a_product_share_their_stand_in(serve: Callable[..., Store], real_records: Path) -> None:
    store = serve(RecordSet.load([real_records / DATES[-1]]))
    op = "eid_1_118_opAvoqBr_R001.82591.13964206"
    query = (
        "query ($p: DatasetInventoriesRequest)"
        " { datasetInventories(filterParams: $p) { productId instrumentName } }"
    )
    rows = store.data(query, {"p": {"observingProgramExecutionId": op}})["datasetInventories"]
    products = [item["productId"] for item in rows]
    assert len(products) == 8
    assert len(set(products)) == 5
    assert "standin-id.85407.60330-393.0" in products
