"""A metadata store that answers from memory, for benchmarks: rendered beforehand, so that it is not measured.

A process of its own that knows two questions, the records of a span of creation dates and their number, and
``GET /pages?page=N`` for clients that only page. No benchmark itself.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from multiprocessing.connection import Connection

import orjson

from dagster_l2.store import DATASETS
from dagster_l2.store.server import generate

PAGE = 1000
_BASE = 20_000
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_PAGE = re.compile(rb"GET /pages\?(?:[^ ]*&)?page=(\d+)")
RECORDED = """
    aoLocked boundingBox browseMovieUrl bucket createDate datasetId embargoEndDate endTime
    exposureTime frameCount friedParameter gosStatus health instrumentName
    instrumentProgramExecutionId isEmbargoed lightLevel observingProgramExecutionId
    primaryExperimentId primaryProposalId spectralLines startTime stokesParameters updateDate
    wavelengthMax wavelengthMin
"""
_HEAD, _TAIL = b'{"data":{"' + DATASETS.query.encode() + b'":[', b"]}}"


class Rendered:
    """``count`` dataset records as JSON, in the order of their creation.

    ``shape`` is ``recorded`` for the 26 fields of the newest recorded dumps (1.15 kB a record), or ``full``
    for all fields that the scan asks for (2.8 kB).
    """

    def __init__(self, count: int, shape: str = "recorded") -> None:
        names = RECORDED.split() if shape == "recorded" else [field.name for field in DATASETS.fields]
        base = generate(3000, seed=7).datasets[:_BASE]
        rows = []
        for number in range(count):
            copy, index = divmod(number, len(base))
            row = {name: base[index].get(name) for name in names}
            if copy:
                row["datasetId"] = f"{row['datasetId']}{copy}"
                created = datetime.fromisoformat(row["createDate"]) + timedelta(seconds=copy)
                row["createDate"] = created.isoformat()
            rows.append((row["createDate"], orjson.dumps(row)))
        rows.sort()
        self.dates = [date for date, _ in rows]
        self.bytes = b",".join(text for _, text in rows)
        self.begins = []
        begin = 0
        for _, text in rows:
            self.begins.append(begin)
            begin += len(text) + 1
        self.begins.append(begin)

    def page(self, low: int, high: int) -> list[bytes | memoryview]:
        high = min(high, len(self.dates))
        middle = memoryview(self.bytes)[self.begins[low] : self.begins[high] - 1] if low < high else b""
        return [_HEAD, middle, _TAIL]

    def answer(self, body: bytes) -> list[bytes | memoryview]:
        question = orjson.loads(body)
        query, params = question["query"], question["variables"].get("filterParams", {})
        span = question["variables"].get("countParams", params)
        low = bisect_left(self.dates, span.get("createDateMin", ""))
        high = bisect_right(self.dates, span.get("createDateMax", "9"))
        count = b'"datasetInventoriesRecordCount":{"recordCount":%d}' % (high - low)
        if f"{DATASETS.query}(" not in query:
            if "RecordCount" in query:
                return [b'{"data":{', count, b"}}"]
            return [b'{"data":{"experimentDescriptions":[],"processingCandidates":[]}}']
        if params.get("pageSize"):
            high = min(high, low + params["pageSize"])
            if params["sortColumn"].startswith("-"):
                low, high = len(self.dates) - params["pageSize"], len(self.dates)
        parts = self.page(low, high)
        return [*parts[:-1], b"],", count, b"}}"] if "RecordCount" in query else parts


class _Connection(asyncio.Protocol):
    def __init__(self, rendered: Rendered) -> None:
        self._rendered, self._read = rendered, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, body = self._read.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self._read = b""
        page = _PAGE.match(head)
        if page:
            low = min(int(page[1]) * PAGE, len(self._rendered.dates))
            parts = self._rendered.page(low, low + PAGE)
        else:
            parts = self._rendered.answer(body)
        size = sum(map(len, parts))
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
        self._transport.writelines([head, *parts])


def _serve(count: int, shape: str, pipe: Connection) -> None:
    rendered = Rendered(count, shape)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(rendered), "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def memory_store(count: int, shape: str = "recorded") -> Iterator[str]:
    """The address of a store of ``count`` records, for as long as the block lasts."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(count, shape, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()
