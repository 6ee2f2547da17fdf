"""Published inversions: created once, kept over restarts, shared by two servers."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dagster_l2.store.server import InversionsUnreadable, RecordSet, store_app
from dagster_l2.store.server.inversions import DuplicateKey, Inversions
from tests.store_server.conftest import Store

FIELDS = (
    "inversionId primaryProposalId instrumentProgramExecutionId bucket asdfObjectKey datasetIds spectralLines"
    " createDate updateDate"
)
CREATE = (
    f"mutation ($p: L2InversionInventory!) {{ createL2InversionInventory(createParams: $p) {{ {FIELDS} }} }}"
)


def params(inversion_id: str = "inv.ABC123", **more: Any) -> dict[str, Any]:
    return {
        "inversionId": inversion_id,
        "primaryProposalId": "pid_1_1",
        "instrumentProgramExecutionId": "id.1.1",
        "bucket": "data",
        "datasetIds": ["AAAAA", "BBBBB"],
        "spectralLines": ["Fe I (630.15 nm)"],
        **more,
    }


def published(store: Store, filters: str = "") -> list[dict[str, Any]]:
    argument = f"(filterParams: {{{filters}}})" if filters else ""
    rows: list[dict[str, Any]] = store.data(f"{{ l2Inversions{argument} {{ {FIELDS} }} }}")["l2Inversions"]
    return rows


def test_created_is_stamped_and_answered(serve: Callable[..., Store]) -> None:
    store = serve()
    asked = params("inv.'; drop table x; --\n" + "x" * 300, asdfObjectKey="pid_1_1/inv_ABC123/a.asdf")
    created = store.data(CREATE, {"p": asked})["createL2InversionInventory"]
    stamp = datetime.fromisoformat(created.pop("createDate")).replace(tzinfo=UTC)
    assert datetime.now(UTC) - stamp < timedelta(minutes=1)
    assert created == {**asked, "updateDate": None}
    assert [row["inversionId"] for row in published(store)] == [asked["inversionId"]]


def test_a_second_create_of_one_id_is_a_duplicate_key(serve: Callable[..., Store]) -> None:
    store = serve()
    store.data(CREATE, {"p": params()})
    before = published(store)
    answer = store.answer(CREATE, {"p": params(bucket="other")})
    assert answer["data"] is None
    assert (
        'duplicate key value violates unique constraint "l2_inversion_inventory_pkey"'
        in answer["errors"][0]["message"]
    )
    assert "inv.ABC123" in answer["errors"][0]["message"]
    assert answer["errors"][0]["path"] == ["createL2InversionInventory"]
    assert published(store) == before


def test_filters(serve: Callable[..., Store]) -> None:
    store = serve()
    store.data(CREATE, {"p": params("inv.AAAAAA", datasetIds=["AAAAA", "BBBBB"])})
    store.data(CREATE, {"p": params("inv.BBBBBB", datasetIds=["CCCCC"])})
    assert [row["inversionId"] for row in published(store)] == ["inv.AAAAAA", "inv.BBBBBB"]
    assert [row["inversionId"] for row in published(store, 'inversionId: "inv.BBBBBB"')] == ["inv.BBBBBB"]
    assert [row["inversionId"] for row in published(store, 'datasetIds: ["BBBBB", "X"]')] == ["inv.AAAAAA"]
    assert len(published(store, "datasetIds: []")) == 2
    assert published(store, 'inversionId: "inv.NOSUCH"') == []


def test_what_is_missing_or_wrong_is_refused(serve: Callable[..., Store]) -> None:
    store = serve()
    for wrong in ({"inversionId": None}, {"datasetIds": [None]}, {"nosuch": 1}):
        answer = store.answer(CREATE, {"p": {**params(), **wrong}})
        assert answer["errors"]
    assert published(store) == []


def test_a_restart_keeps_them(serve: Callable[..., Store], tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "kept.sqlite"
    first = serve(inversions_file=file)
    first.data(CREATE, {"p": params()})
    kept = published(first)
    assert published(serve(inversions_file=file)) == kept


def test_two_servers_on_one_file_create_an_id_once(serve: Callable[..., Store]) -> None:
    stores = [serve(), serve()]
    answers: list[dict[str, Any]] = []

    def publish(store: Store, number: int) -> None:
        answers.append(store.answer(CREATE, {"p": params(f"inv.{number:06d}")}))

    threads = [
        threading.Thread(target=publish, args=(store, n)) for n in range(8) for store in (*stores, *stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("errors" not in answer for answer in answers) == 8
    assert sum("duplicate key" in answer["errors"][0]["message"] for answer in answers if "errors" in answer)
    assert len(answers) == 32
    assert published(stores[0]) == published(stores[1])
    assert len(published(stores[0])) == 8


def test_a_create_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    inversions = Inversions(tmp_path / "i.sqlite")
    inversions.create(params())
    other = sqlite3.connect(tmp_path / "i.sqlite")
    try:
        assert other.execute("pragma journal_mode").fetchone() == ("wal",)
        assert other.execute("select inversion_id from l2_inversion_inventory").fetchall() == [
            ("inv.ABC123",)
        ]
    finally:
        other.close()
    inversions.close()
    with pytest.raises(DuplicateKey):
        inversions.create(params())
    inversions.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "inversions.sqlite"
    file.write_text("this is not a database, and long enough to be seen as none" * 20, encoding="utf-8")
    with pytest.raises(InversionsUnreadable, match=r"inversions\.sqlite"):
        store_app(RecordSet(), inversions_file=file)
