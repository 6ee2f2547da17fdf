"""A page read at once: whatever it holds, the same columns as record by record, or not read at all."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_l2.store import DATASETS, FieldType, content_hashes, parse_records
from dagster_l2.store.fields import STRUCT_KEYS
from dagster_l2.store.page import read_page

RECORD: dict[str, Any] = {
    "datasetId": "ALDLJ",
    "createDate": "2024-02-28T00:27:50.614662",
    "primaryProposalId": "pid_2_114",
}

int64 = st.integers(-(2**63), 2**63 - 1)
moments = st.datetimes().map(lambda moment: moment.isoformat()) | st.sampled_from(
    [
        "2024-02-28 00:27:50.1",
        "2024-02-28T00:27:50Z",
        "2024-02-28T00:27:50.123456789",
        "2024-02-28T00:27:50.1Z",
    ]
)
VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.TEXT: st.text(max_size=8),
    FieldType.INT: int64,
    FieldType.FLOAT: st.floats() | int64,
    FieldType.BOOL: st.booleans(),
    FieldType.DATETIME: moments,
    FieldType.TEXT_LIST: st.lists(st.text(max_size=4), max_size=3),
    **{
        kind: st.dictionaries(
            st.sampled_from([*keys, "other"]),
            st.none() | (st.floats() if kind is FieldType.DISTRIBUTION else int64),
            max_size=3,
        )
        for kind, keys in STRUCT_KEYS.items()
    },
}
ODD = st.sampled_from(
    [7, 7.5, 1e30, 2**70, True, "", "x", "7", "2024-02-28", "2024-02-31T00:00:00", "2024-02-28T24:00:00",
     "2024-02-28T00:27:60", "2024-02-28T00:27:50.", "0000-01-01T00:00:00", [], [None], ["x", 7], [[]], {},
     {"good": 1.5}, {"med": "0.1"}, '{"good": 3}', "\ud800", "a\x00b", "\x1e\x1f"]
)  # fmt: skip


@st.composite
def records(draw: st.DrawFn, *, odd: bool) -> dict[str, Any]:
    out = dict(RECORD)
    for field in draw(st.lists(st.sampled_from(DATASETS.fields), max_size=12)):
        optional = VALUES[field.type] if field.required else st.none() | VALUES[field.type]
        out[field.name] = draw(ODD | optional if odd else optional)
    return out


def answer(raw: list[Any]) -> bytes:
    return json.dumps({"data": {"datasetInventories": raw}}).encode()


def assert_same(raw: list[Any]) -> None:
    page = read_page(DATASETS, answer(raw))
    assert page is not None
    frame, rejected = parse_records(DATASETS, page)
    slow, slow_rejected = parse_records(DATASETS, list(page))
    assert rejected == slow_rejected == []
    assert frame.schema == slow.schema
    assert frame.equals(slow)
    assert content_hashes(frame).equals(content_hashes(slow))
    assert len(page) == len(raw)


@given(st.lists(records(odd=False), max_size=4))
def test_what_is_well_formed_is_read_at_once_and_gives_the_same(raw: list[dict[str, Any]]) -> None:
    assert_same(raw)


@given(st.lists(records(odd=True), max_size=3))
def test_what_is_odd_gives_the_same_or_is_left_to_the_parser(raw: list[dict[str, Any]]) -> None:
    if read_page(DATASETS, answer(raw)) is not None:
        assert_same(raw)


def test_the_real_records_are_read_at_once(real_records: Any) -> None:
    for path in sorted(real_records.glob("*/*.json")):
        assert_same(json.loads(path.read_text())["data"]["datasetInventories"])


@pytest.mark.parametrize("body", [
    b"", b" ", b"<html>", b"[]", b"7", b"{}", b'{"data":null}', b'{"data":{}}',
    b'{"data":{"datasetInventories":null}}', b'{"data":{"datasetInventories":[null]}}',
    b'{"data":{"datasetInventories":[7]}}', b'{"data":{"datasetInventories":{}}}',
    b'{"data":{"datasetInventories":[]}', b'{"data":{"datasetInventories":[]}} x',
    b'{"data":{"datasetInventories":[]}}{"data":{"datasetInventories":[]}}',
    b'{"data":{"datasetInventories":[]},"errors":[{"message":"boom"}]}',
    b'{"data":{"datasetInventories":[]},"errors":"boom"}',
    b'{"data":{"datasetInventories":[{"datasetId":"\xff"}]}}',
    b'{"data":{"datasetInventories":[{"unknown":"\xff"}]}}',
    b'{"data":{"datasetInventories":[{"datasetId":"A"}]}}',
])  # fmt: skip
def test_what_is_no_page_of_records_is_not_read(body: bytes) -> None:
    assert read_page(DATASETS, body) is None


def test_a_page_is_the_list_of_its_records() -> None:
    raw = [{**RECORD, "datasetId": name, "somethingNew": [1]} for name in "ABC"]
    page = read_page(DATASETS, answer(raw))
    assert page == raw
    assert page is not None
    assert (page[0], page[1:], len(page)) == (raw[0], raw[1:], 3)


@given(st.permutations(range(5)))
def test_of_records_with_one_id_the_same_stays_in_any_order(order: list[int]) -> None:
    dates = [None, "2024-01-01T00:00:00", "2024-01-03T00:00:00", "2024-01-03T00:00:00", "2024-01-02T00:00:00"]
    raw = [{**RECORD, "updateDate": date, "frameCount": number} for number, date in enumerate(dates)]
    shuffled = [raw[number] for number in order]
    page = read_page(DATASETS, answer(shuffled))
    assert page is not None
    frames = [parse_records(DATASETS, some)[0] for some in (shuffled, page)]
    assert all(frame.equals(parse_records(DATASETS, raw)[0]) for frame in frames)
    assert frames[0]["update_date"].dt.day().to_list() == [3]


def test_only_the_twins_of_a_page_are_looked_at() -> None:
    raw = [{**RECORD, "datasetId": name, "frameCount": number} for number, name in enumerate("ABACB")]
    frame, _ = parse_records(DATASETS, raw)
    assert sorted(frame["dataset_id"]) == ["A", "B", "C"]
    assert frame.filter(pl.col("dataset_id") == "C")["frame_count"].to_list() == [3]
