"""The document of an inverted OP keeps its schema, changes when it says otherwise, and tells since when."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import pytest

from dagster_l2.pipeline.op_documents import list_documents, read_document, write_documents
from dagster_l2.publishing import OP_DOCUMENT_SCHEMA, OP_DOCUMENT_VERSION, etag

OP, OTHER = "eid_1_118_opAvoqBr_R001.82591.13964206", "a b/c"
_GOLD = """
create table observing_programs as
    select
        op_id,
        'pid_1_118' as proposal_id,
        'eid_1_118' as experiment_id,
        'Pores' || chr(10) || 'and spots' as experiment_description,
        timestamp '2024-04-17 20:25:26.516' as start_time,
        timestamp '2024-04-17 20:45:18' as end_time,
        true as is_embargoed,
        null::timestamp as embargo_end_date,
        ['Fe I (630.15 nm)'] as spectral_lines
    from (values ('{op}'), ('{other}'), ('not inverted')) as ops (op_id);

create table datasets as
    select
        op_id,
        dataset_id,
        'L1-' || dataset_id as product_id,
        instrument,
        program as instrument_program_id,
        timestamp '2024-04-17 20:25:26.516' as start_time,
        null::timestamp as end_time,
        630.1::double as wavelength_min_nm,
        null::double as wavelength_max_nm,
        77694::bigint as frame_count,
        'IQUV' as stokes,
        ['Fe I (630.15 nm)'] as spectral_lines,
        true as lines_estimated,
        'ACTIVE' as status
    from observing_programs, (
        values ('BBBBB', 'VBI', 'id.2.2'), ('AAAAA', 'VISP', 'id.1.1')
    ) as parts (dataset_id, instrument, program);

create table inversions as
    select
        * replace (inverted_at::timestamp as inverted_at, published_at::timestamp as published_at),
        'id.1.1' as instrument_program_id,
        ['AAAAA'] as dataset_ids,
        ['Fe I (630.15 nm)'] as spectral_lines,
        'c0ffee' as commit_hash
    from (values
        ('{op}', 'inv.AAAAA1', 'Published', date '2025-01-02', date '2025-01-03', 'data', 'p/inv/x.asdf'),
        ('{op}', 'inv.AAAAA2', 'Working', null, null, null, null),
        ('{other}', 'inv.BBBBB1', 'Inverted', date '2025-01-04', null, null, null),
        ('not inverted', 'inv.CCCCC1', 'Working', null, null, null, null)
    ) as said (op_id, inversion_id, last_state, inverted_at, published_at, bucket, asdf_object_key);

create table op_history as
    select
        op_id,
        seq,
        to_state,
        timestamp '2025-01-01' + interval (seq) hour as occurred_at,
        case when seq < 3 then timestamp '2025-01-01' + interval (seq + 1) hour end as ended_at,
        null::varchar as inversion_id
    from observing_programs, (
        values (3, 'Inverted'), (1, 'Discovered'), (2, 'Working')
    ) as steps (seq, to_state);
"""


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    path = tmp_path / "l2.duckdb"
    _change(path, _GOLD.format(op=OP, other=OTHER))
    return path


def _change(gold: Path, sql: str) -> None:
    with duckdb.connect(str(gold)) as connection:
        connection.execute(sql)


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(OP_DOCUMENT_SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_each_inverted_op_has_a_document_that_keeps_the_schema(
    gold: Path, tmp_path: Path, validator: jsonschema.Draft202012Validator
) -> None:
    written = write_documents(gold, tmp_path / "documents")
    assert sorted(written.changed) == sorted([OP, OTHER])
    for document in list_documents(tmp_path / "documents").documents:
        validator.validate(document)
    document = read_document(tmp_path / "documents", OP)
    assert document is not None
    assert document["schema_version"] == OP_DOCUMENT_VERSION
    assert document["experiment"]["description"] == "Pores\nand spots"
    assert document["embargo"] == {"is_embargoed": True, "end_date": None}
    assert document["start_time"] == "2024-04-17T20:25:26.516000Z"
    assert [dataset["dataset_id"] for dataset in document["datasets"]] == ["AAAAA", "BBBBB"]
    assert document["instrument_programs"] == [
        {"instrument_program_id": "id.1.1", "instrument": "VISP"},
        {"instrument_program_id": "id.2.2", "instrument": "VBI"},
    ]
    assert [one["inversion_id"] for one in document["inversions"]] == ["inv.AAAAA1"]
    assert document["inversions"][0]["asdf_object_key"] == "p/inv/x.asdf"
    assert [(state["state"], state["until"]) for state in document["states"]] == [
        ("Discovered", "2025-01-01T02:00:00.000000Z"),
        ("Working", "2025-01-01T03:00:00.000000Z"),
        ("Inverted", None),
    ]
    assert document["state"] == "Inverted"


def _drop_a_field(document: dict[str, Any]) -> None:
    del document["embargo"]["end_date"]


def _name_a_person(document: dict[str, Any]) -> None:
    document["inversions"][0]["claimed_by"] = "ana"


def _forget_the_zone(document: dict[str, Any]) -> None:
    document["updated_at"] = document["updated_at"].removesuffix("Z")


def _invent_a_state(document: dict[str, Any]) -> None:
    document["states"][0]["state"] = "Lost"


@pytest.mark.parametrize("spoil", [_drop_a_field, _name_a_person, _forget_the_zone, _invent_a_state])
def test_the_schema_refuses_what_it_does_not_say(
    spoil: Callable[[dict[str, Any]], None],
    gold: Path,
    tmp_path: Path,
    validator: jsonschema.Draft202012Validator,
) -> None:
    write_documents(gold, tmp_path)
    document = copy.deepcopy(read_document(tmp_path, OP))
    assert document is not None
    validator.validate(document)
    spoil(document)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(document)


def test_who_asks_since_the_last_answer_gets_what_changed(gold: Path, tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    assert list_documents(folder).next_since is None
    write_documents(gold, folder)
    first = list_documents(folder)
    assert {document["op_id"] for document in first.documents} == {OP, OTHER}

    assert write_documents(gold, folder).changed == []
    same = list_documents(folder)
    assert (same.etag, same.next_since) == (first.etag, first.next_since)
    assert list_documents(folder, since=first.next_since).documents == []

    _change(gold, f"update inversions set published_at = timestamp '2025-02-01' where op_id = '{OTHER}'")
    assert write_documents(gold, folder).changed == [OTHER]
    news = list_documents(folder, since=first.next_since)
    assert [document["op_id"] for document in news.documents] == [OTHER]
    assert news.documents[0]["inversions"][0]["published_at"] == "2025-02-01T00:00:00.000000Z"
    assert list_documents(folder).etag != first.etag
    assert len(list_documents(folder, since="2024-01-01").documents) == 2
    with pytest.raises(ValueError, match="since yesterday"):
        list_documents(folder, since="since yesterday")


def test_a_document_is_kept_without_datasets_and_goes_with_its_inversion(gold: Path, tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    write_documents(gold, folder)
    _change(gold, f"delete from observing_programs where op_id = '{OTHER}'")
    assert write_documents(gold, folder).removed == []
    assert read_document(folder, OTHER) is not None
    _change(gold, f"delete from inversions where op_id = '{OTHER}'")
    assert write_documents(gold, folder).removed == [OTHER]
    assert read_document(folder, OTHER) is None


def test_a_damaged_document_is_written_again(gold: Path, tmp_path: Path) -> None:
    write_documents(gold, tmp_path)
    before = read_document(tmp_path, OP)
    (tmp_path / f"{OP}.json").write_text('{"op_id": ')
    assert read_document(tmp_path, OP) is None
    assert write_documents(gold, tmp_path).changed == [OP]
    after = read_document(tmp_path, OP)
    assert before is not None
    assert after is not None
    assert etag(after) == etag(before)
    assert after["updated_at"] > before["updated_at"]
