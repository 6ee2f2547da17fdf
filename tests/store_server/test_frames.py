"""The object space: genuine ViSP level-1 frames that agree with the record of their dataset."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from astropy.io import fits

from dagster_l2.store.server import LocalStoreServer, RecordSet, generate, store_app

LIST = (
    "query ($p: FrameInventoriesRequest) { frameInventories(filterParams: $p)"
    " { inventoryId bucket objectKey frameSize frameStatus datasetId observationDate wavelength"
    " observingProgramExecutionId processingType } }"
)


@pytest.fixture(scope="module")
def records() -> RecordSet:
    """The records of the embedded default, one of them with frames that were withdrawn."""
    records = generate(8, seed=1, small_frames=True)
    chosen(records)["frameCount"] = chosen(records)["originalFrameCount"] - 2
    return records


def chosen(records: RecordSet) -> dict[str, Any]:
    """A short ViSP dataset with four Stokes parameters, three values of health and one line."""
    row = next(
        row
        for row in records.datasets
        if row["stokesParameters"] == "IQUV" and row["originalFrameCount"] <= 24 and row["spectralLines"]
    )
    row["health"] = {"good": row["originalFrameCount"] - 3, "bad": 2, "ill": None, "unknown": 1}
    return row


@pytest.fixture(scope="module")
def store(records: RecordSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("store")
    app = store_app(
        records,
        inversions_file=folder / "inversions.sqlite",
        frames_folder=folder / "objects",
        allow_faults=True,
    )
    with LocalStoreServer(app) as server, httpx.Client(base_url=server.url, timeout=300) as http:
        yield http


def listed(store: httpx.Client, **asked: Any) -> list[dict[str, Any]]:
    answer = store.post("/graphql", json={"query": LIST, "variables": {"p": asked}}).json()
    assert "errors" not in answer, answer
    rows: list[dict[str, Any]] = answer["data"]["frameInventories"]
    return rows


@pytest.fixture(scope="module")
def frames(store: httpx.Client, records: RecordSet) -> list[dict[str, Any]]:
    return listed(store, datasetId=chosen(records)["datasetId"])


@pytest.fixture(scope="module")
def fetched(store: httpx.Client, frames: list[dict[str, Any]], tmp_path_factory: Any) -> Path:
    """All frames of the dataset, fetched over HTTP."""
    folder: Path = tmp_path_factory.mktemp("fetched")
    for frame in frames:
        if frame["frameStatus"] == "AVAILABLE":
            answer = store.get(f"/objects/{frame['bucket']}/{frame['objectKey']}")
            assert answer.status_code == 200
            assert len(answer.content) == frame["frameSize"]
            (folder / Path(frame["objectKey"]).name).write_bytes(answer.content)
    return folder


@pytest.fixture(scope="module")
def whole(records: RecordSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frames of the dataset before any was withdrawn, from another store's folder."""
    record = {**chosen(records), "frameCount": chosen(records)["originalFrameCount"]}
    folder: Path = tmp_path_factory.mktemp("other")
    records = RecordSet({"datasetInventories": [record]})
    app = store_app(records, inversions_file=folder / "i.sqlite", frames_folder=folder / "objects")
    with LocalStoreServer(app) as server, httpx.Client(base_url=server.url, timeout=300) as http:
        listed(http, observingProgramExecutionIds=[record["observingProgramExecutionId"]])
    return folder / "objects" / record["bucket"] / record["primaryProposalId"] / record["datasetId"]


def test_the_store_lists_what_the_record_counts(frames: list[dict[str, Any]], records: RecordSet) -> None:
    record = chosen(records)
    assert len(frames) == record["originalFrameCount"]
    assert Counter(frame["frameStatus"] for frame in frames) == {
        "AVAILABLE": record["frameCount"],
        "LOST": 1,
        "REMOVED": 1,
    }
    for frame in frames:
        assert frame["bucket"] == record["bucket"]
        assert frame["observingProgramExecutionId"] == record["observingProgramExecutionId"]
        assert record["startTime"] <= frame["observationDate"] < record["endTime"]
        assert (frame["frameSize"] is None) == (frame["frameStatus"] != "AVAILABLE")


def test_the_observatory_accepts_the_frames(fetched: Path) -> None:
    from dkist_header_validator import spec214_validator

    for path in sorted(fetched.iterdir())[::7]:
        spec214_validator.validate(path)


def test_the_observatory_computes_the_record_from_the_frames(whole: Path, records: RecordSet) -> None:
    # In a process of its own: these packages are heavy, and theirs are the warnings.
    script = (
        "import json, sys; from pathlib import Path;"
        "from dkist_inventory.header_parsing import HeaderParser;"
        "from dkist_inventory.inventory import extract_inventory;"
        "parser = HeaderParser.from_filenames(sorted(Path(sys.argv[1]).glob('*.fits')), hdu=1);"
        "print('\\n' + json.dumps(extract_inventory(parser), default=str))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(whole)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    computed, record = json.loads(done.stdout.splitlines()[-1]), chosen(records)
    for name in (
        "datasetId", "productId", "observingProgramExecutionId", "instrumentProgramExecutionId",
        "primaryProposalId", "primaryExperimentId", "contributingProposalIds", "instrumentName",
        "exposureTime", "hasAllStokes", "spectralLines", "targetTypes", "recipeRunId", "workflowName",
        "headerVersion", "headerDataUnitCreationDate", "asdfObjectKey",
    ):  # fmt: skip
        assert computed[name] == record[name], name
    assert {name.lower(): count for name, count in computed["health"].items()} == {
        name: count for name, count in record["health"].items() if count
    }
    assert computed["gosStatus"] == {name: count for name, count in record["gosStatus"].items() if count}
    assert computed["aoLocked"] == record["aoLocked"]
    for name in ("friedParameter", "lightLevel"):
        assert computed[name] == pytest.approx(record[name], rel=0.05)
    assert "".join(computed["stokesParameters"]) == record["stokesParameters"]
    (x1, y1), (x2, y2) = computed["boundingBox"]
    assert f"({x2:.2f},{y2:.2f}),({x1:.2f},{y1:.2f})" == record["boundingBox"]
    pixel = (record["wavelengthMax"] - record["wavelengthMin"]) / 100
    for name in ("wavelengthMin", "wavelengthMax"):
        assert computed[name] == pytest.approx(record[name], abs=pixel)
    for name in ("startTime", "endTime"):
        apart = datetime.fromisoformat(computed[name]) - datetime.fromisoformat(record[name])
        assert abs(apart) < timedelta(milliseconds=record["exposureTime"] + 1)


def test_headers_and_pixels(fetched: Path, frames: list[dict[str, Any]], records: RecordSet) -> None:
    record, health, seen = chosen(records), Counter[str](), []
    for path in sorted(fetched.iterdir()):
        with fits.open(path, checksum=True) as hdus:
            header, data = hdus[1].header, hdus[1].data
        assert header["DSETID"] == record["datasetId"]
        assert header["FILENAME"] == path.name
        health[header["DSHEALTH"]] += 1
        seen.append((header["STOKES"], header["VSPSTP"], header["DATE-BEG"]))
        assert data.shape == (1, header["NAXIS2"], header["NAXIS1"])
        assert header["DATAMIN"] <= header["DATAMEAN"] <= header["DATAMAX"]
        if header["STOKES"] == "I":
            # The line is a dip: the deepest wavelength is far below the continuum.
            spectrum = np.median(data[0], axis=1)
            assert spectrum.min() < 0.7 * np.median(spectrum)
    steps = record["originalFrameCount"] // 4
    assert {stokes for stokes, _, _ in seen} == set("IQUV")
    assert len({moment for stokes, _, moment in seen if stokes == "I"}) == steps
    assert len(set(seen)) == record["frameCount"] == sum(health.values())
    assert [number for stokes, number, _ in sorted(seen, key=lambda one: one[2]) if stokes == "I"] == list(
        range(1, steps + 1)
    )


def test_the_same_dataset_has_the_same_bytes_wherever_it_is_made(fetched: Path, whole: Path) -> None:
    assert len(list(whole.iterdir())) == len(list(fetched.iterdir())) + 2
    for path in fetched.iterdir():
        assert _digest(whole / path.name) == _digest(path), path.name


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def test_a_transfer_can_go_on_and_what_is_not_there_is_404(
    store: httpx.Client, frames: list[dict[str, Any]], fetched: Path
) -> None:
    url = f"/objects/{frames[0]['bucket']}/{frames[0]['objectKey']}"
    content = (fetched / Path(url).name).read_bytes()
    rest = store.get(url, headers={"Range": "bytes=2880-"})
    assert (rest.status_code, rest.content) == (206, content[2880:])
    lost = next(frame for frame in frames if frame["frameStatus"] == "LOST")
    folder = f"/objects/{lost['bucket']}/"
    for path in (lost["objectKey"], "pid_1_1/ZZZZZ/x.fits", "..%2F..%2Finversions.sqlite", "a"):
        assert store.get(folder + path).status_code == 404
    store.post("/_faults", json=[{"kind": "cut", "times": 1}])
    with pytest.raises(httpx.RemoteProtocolError):
        store.get(url)
    assert fits.open(io.BytesIO(store.get(url).content))[1].header["NAXIS"] == 3


def test_all_frames_there_could_be_are_not_made_at_once(store: httpx.Client) -> None:
    answer = store.post("/graphql", json={"query": LIST, "variables": {"p": {}}}).json()
    assert "name datasetId" in answer["errors"][0]["message"]
    assert listed(store, datasetId="ZZZZZ") == []
