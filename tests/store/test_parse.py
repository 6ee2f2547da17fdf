"""Parsing: what the store may send and what becomes of it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_l2.store import DATASETS, RECORD_TYPES, FieldType, content_hashes, parse_records

RECORD: dict[str, Any] = {
    "datasetId": "ALDLJ",
    "createDate": "2024-02-28T00:27:50.614662",
    "primaryProposalId": "pid_2_114",
}


def record(**changes: Any) -> dict[str, Any]:
    return {**RECORD, **changes}


def one(**changes: Any) -> dict[str, Any]:
    frame, rejected = parse_records(DATASETS, [record(**changes)])
    assert not rejected
    return frame.row(0, named=True)


def reason(**changes: Any) -> str:
    frame, rejected = parse_records(DATASETS, [record(**changes), record(datasetId="OTHER")])
    assert frame["dataset_id"].to_list() == ["OTHER"]
    assert len(rejected) == 1
    return rejected[0].reason


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-02-28T00:27:50", datetime(2024, 2, 28, 0, 27, 50)),
        ("2024-02-28T00:27:50.614662", datetime(2024, 2, 28, 0, 27, 50, 614662)),
        ("2024-02-28T00:27:50Z", datetime(2024, 2, 28, 0, 27, 50)),
        ("2024-02-28T00:27:50.614662Z", datetime(2024, 2, 28, 0, 27, 50, 614662)),
    ],
)
def test_a_moment_is_utc_in_each_of_its_forms(text: str, moment: datetime) -> None:
    assert one(createDate=text)["create_date"] == moment


def test_every_nullable_field_may_be_null_or_absent() -> None:
    nulls = {field.name: None for field in DATASETS.fields if not field.required}
    assert one(**nulls) == one()


def test_unknown_fields_are_ignored() -> None:
    assert one(somethingNew={"a": 1}) == one()


def test_integers_and_floats_of_a_wavelength_are_the_same_content() -> None:
    frames = [parse_records(DATASETS, [record(wavelengthMin=value)])[0] for value in (630, 630.0)]
    assert content_hashes(frames[0])[0] == content_hashes(frames[1])[0]


def test_counts_keep_their_nulls_and_big_frame_counts_do_not_wrap() -> None:
    row = one(health={"good": 77694, "bad": None}, frameCount=77694)
    assert row["health"] == {"good": 77694, "bad": None, "ill": None, "unknown": None}
    assert row["frame_count"] == 77694
    assert one(health='{"good": 3}')["health"]["good"] == 3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"frameCount": "many"}, "frameCount"),
        ({"frameCount": 2**70}, "frameCount"),
        ({"frameCount": 1.5}, "frameCount"),
        ({"createDate": "yesterday"}, "createDate"),
        ({"createDate": "2024-02-31T00:00:00"}, "createDate"),
        ({"createDate": None}, "createDate"),
        ({"datasetId": None}, "datasetId"),
        ({"datasetId": 7}, "datasetId"),
        ({"primaryProposalId": None}, "primaryProposalId"),
        ({"wavelengthMin": True}, "wavelengthMin"),
        ({"spectralLines": "Fe I"}, "spectralLines"),
        ({"spectralLines": ["Fe I", None]}, "spectralLines"),
        ({"health": [1]}, "health"),
        ({"friedParameter": {"med": "0.1"}}, "friedParameter"),
        ({"boundingBox": "\ud800"}, "boundingBox"),
    ],
)
def test_a_bad_record_is_named_and_the_others_go_on(changes: dict[str, Any], named: str) -> None:
    assert named in reason(**changes)


def test_what_is_no_object_is_rejected_with_its_text() -> None:
    frame, rejected = parse_records(DATASETS, [7, None, "x", record()])
    assert len(frame) == 1
    assert [json.loads(bad.raw_json) for bad in rejected] == [7, None, "x"]


def test_the_last_record_of_an_id_stays() -> None:
    frame, _ = parse_records(DATASETS, [record(frameCount=1), record(frameCount=2)])
    assert frame["frame_count"].to_list() == [2]


def test_update_date_is_no_content_and_every_other_field_is() -> None:
    samples: dict[FieldType, Any] = {
        FieldType.TEXT: "x",
        FieldType.INT: 7,
        FieldType.FLOAT: 7.5,
        FieldType.BOOL: True,
        FieldType.DATETIME: "2020-01-01T00:00:00",
        FieldType.TEXT_LIST: ["x"],
        FieldType.DISTRIBUTION: {"med": 1.0},
        FieldType.HEALTH: {"good": 1},
        FieldType.GOS: {"open": 1},
    }
    base = content_hashes(parse_records(DATASETS, [record()])[0])[0]
    for field in DATASETS.fields:
        frame, _ = parse_records(DATASETS, [record(**{field.name: samples[field.type]})])
        same = content_hashes(frame)[0] == base
        assert same == (field.name == "updateDate"), field.name


def test_the_hash_of_a_record_stays_what_it_was() -> None:
    frame, _ = parse_records(
        DATASETS, [record(wavelengthMin=630.2392, health={"good": 3}, isEmbargoed=False)]
    )
    # A changed hash makes every record of every lake look changed: change it only on purpose.
    assert content_hashes(frame)[0] == "f5540bc2cad84ed9c4ad0526b72732e1189ffc6c1bf3708be88b361d684620e0"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from([f.name for f in DATASETS.fields]), json_values, max_size=5),
        max_size=4,
    )
)
def test_whatever_comes_every_record_is_either_parsed_or_rejected(raw: list[dict[str, Any]]) -> None:
    good = record(datasetId="GOOD")
    frame, rejected = parse_records(DATASETS, [*raw, good])
    assert frame.filter(pl.col("dataset_id") == "GOOD").height == 1
    ids = {r.get("datasetId") for r in raw if isinstance(r.get("datasetId"), str)} | {"GOOD"}
    assert set(frame["dataset_id"]) <= ids
    assert len(frame) + len(rejected) <= len(raw) + 1
    content_hashes(frame)


def test_the_fields_are_those_of_the_public_schema(real_records: Path) -> None:
    types = json.loads((real_records / "schema_types.json").read_text())
    for record_type in RECORD_TYPES:
        declared = types[record_type.graphql_type]["fields"]
        for field in record_type.fields:
            assert declared[field.name]["type"] == field.graphql_type, field.name


def test_the_real_records_all_parse(real_records: Path) -> None:
    for path in sorted(real_records.glob("*/*.json")):
        raw = json.loads(path.read_text())["data"]["datasetInventories"]
        frame, rejected = parse_records(DATASETS, raw)
        assert (len(frame), rejected) == (len(raw), [])
