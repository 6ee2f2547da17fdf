"""Frames from a real S3-compatible server: gone on with, missing ones and wrong keys told."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import obstore
import pytest
from obstore.store import S3Store

from dagster_l2.inputs import Frame, FrameNotFetched, S3Objects

WEED = Path(sys.executable).with_name("weed")
CONTENT = bytes(range(256)) * 64
PATIENCE_S = 120


def free_port() -> int:
    """A port whose neighbour 10000 above, which the server takes as well, exists."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
        if port < 50000:
            return port


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("s3")
    key = {"accessKey": "reader", "secretKey": "reader-secret"}
    identity = {"name": "l2", "credentials": [key], "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    server = subprocess.Popen(
        [
            WEED, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
            f"-s3.config={folder / 's3.json'}", "-volume.max=20", "-master.volumeSizeLimitMB=16",
            *(f"-{name}.port={port}" for name, port in ports.items()),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{ports['s3']}"
        fill(url)
        yield url
    finally:
        server.kill()
        server.wait()


def fill(url: str) -> None:
    """Wait for the server, and put a frame there."""
    options = {"endpoint": url, "access_key_id": "reader", "secret_access_key": "reader-secret"}
    store = S3Store("data", **options, region="us-east-1", client_options={"allow_http": True})
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            httpx.get(url)
            obstore.put(store, "p/AAAAA/1.fits", CONTENT)
        except (httpx.HTTPError, obstore.exceptions.BaseError):
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.3)
        else:
            return


def frame(name: str = "1.fits", size: int | None = len(CONTENT)) -> Frame:
    return Frame("data", f"p/AAAAA/{name}", "AAAAA", datetime(2025, 3, 1), size, "AVAILABLE")


def objects(endpoint: str, secret: str = "reader-secret") -> S3Objects:
    return S3Objects(endpoint=endpoint, region="us-east-1", key="reader", secret=secret)


def test_a_frame_comes_whole_and_is_gone_on_with(endpoint: str, tmp_path: Path) -> None:
    target = tmp_path / "AAAAA" / "1.fits"
    objects(endpoint).fetch(frame(), target)
    assert target.read_bytes() == CONTENT
    target.unlink()
    # What is there is not fetched again: it is kept even where it differs.
    target.with_name("1.fits.part").write_bytes(b"x" * 1000)
    objects(endpoint).fetch(frame(), target)
    assert target.read_bytes() == b"x" * 1000 + CONTENT[1000:]


def test_what_cannot_be_gone_on_with_is_begun_anew(endpoint: str, tmp_path: Path) -> None:
    target, part = tmp_path / "1.fits", tmp_path / "1.fits.part"
    # All of it is here, and nobody says how long it is: killed before it got its name.
    part.write_bytes(b"x" * len(CONTENT))
    objects(endpoint).fetch(frame(size=None), target)
    assert target.read_bytes() == CONTENT
    # Bytes of another content.
    part.write_bytes(b"x" * 1000)
    part.with_name("1.fits.part.tag").write_text('"another"')
    objects(endpoint).fetch(frame(), target)
    assert target.read_bytes() == CONTENT
    # More than there is behind it.
    part.write_bytes(b"x" * (len(CONTENT) + 5))
    part.with_name("1.fits.part.tag").write_text('"another"')
    with pytest.raises(FrameNotFetched):
        objects(endpoint).fetch(frame(size=None), target)
    objects(endpoint).fetch(frame(size=None), target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["1.fits"]


def test_what_does_not_come_is_told(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(FrameNotFetched, match="it is not there") as missing:
        objects(endpoint).fetch(frame("2.fits"), tmp_path / "2.fits")
    assert not missing.value.transient
    with pytest.raises(FrameNotFetched, match="the key may not read it") as refused:
        objects(endpoint, "wrong-and-secret").fetch(frame(), tmp_path / "1.fits")
    assert not refused.value.transient
    assert "wrong-and-secret" not in str(refused.value)
    with pytest.raises(FrameNotFetched, match=r"the store lists 1\."):
        objects(endpoint).fetch(frame(size=1), tmp_path / "1.fits")
    with pytest.raises(FrameNotFetched) as away:
        objects(f"http://127.0.0.1:{free_port()}").fetch(frame(), tmp_path / "1.fits")
    assert away.value.transient
