"""The service over a large ledger: latencies of reads and pages, claims under contention, memory.

The service is a process of its own (`l2 serve`), the clients are threads of this one: with few cores they
take from each other, so the processor time of the service for a request stands beside the latencies.
`python benchmarks/service.py --transitions 1000000 --requests 100000` is the documented run, `--parts` takes
some of it. It ends with 1 when a read of the queue or of an OP misses `READ_P99_MS`, a page `PAGE_P99_MS`,
a claim is lost or doubled, or memory grows.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kit
from made_history import STEPS, fill, op_name

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "service"))

from service_world import bring, make_gold  # noqa: E402

from dagster_l2.ledger import Ledger, State  # noqa: E402

CLAIMED, CLAIMERS = 50, 32
PARTS = ("reads", "claims", "memory")

QUEUE, OP = "GET /queue, 100 rows", "GET /observing-programs/{op_id}"
READ_P99_MS = 100.0
"""What 99 of 100 reads of `QUEUE` and `OP` stay below, with one client and with eight."""

PAGE_P99_MS = 200.0
"""What 99 of 100 pages stay below, with one client and with eight."""

GROWTH_MB = 4.0
"""What the last quarter of many requests may add to the service's memory."""

NEW_GOLDS = 100
"""While memory is looked at, so often gold is replaced, and all that is kept of it is read anew."""


class Client:
    """One connection that is kept."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self._headers = {"Authorization": f"Bearer {token}", "Cookie": f"l2_token={token}"}

    def ask(self, path: str, method: str = "GET") -> int:
        self._connection.request(method, path, headers=self._headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Memory of a process that is its own."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


@contextmanager
def served(data: Path, url: str) -> Iterator[tuple[int, int]]:
    """The service as people start it; its port and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "L2_DATA_DIR": str(data), "L2_SERVICE_RATE_MAX": "1000000"}
    environment |= {"L2_DATABASE_URL": url}
    command = [str(Path(sys.executable).with_name("l2")), "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, cwd=data)
    try:
        while True:
            try:
                if Client(port, "").ask("/healthz") == 200:
                    break
            except OSError:
                if process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def latencies(port: int, token: str, clients: int, each: int, path: Callable[[int], str]) -> list[float]:
    """Seconds of each request, of all clients, in order."""
    taken: list[float] = []

    def work(number: int) -> None:
        client = Client(port, token)
        mine = []
        for turn in range(each):
            start = time.perf_counter()
            status = client.ask(path(number * each + turn))
            mine.append(time.perf_counter() - start)
            if status != 200:
                raise AssertionError(f"{path(number)} gave {status}")
        taken.extend(mine)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(taken) != clients * each:
        raise AssertionError("a client failed")
    return sorted(taken)


def reads(port: int, pid: int, token: str, ops: int, requests: int) -> list[dict[str, Any]]:
    paths: dict[str, Callable[[int], str]] = {
        QUEUE: lambda _n: "/queue?limit=100",
        "GET /observing-programs, 100 rows": lambda n: (
            f"/observing-programs?limit=100&after={op_name(n % ops)}"
        ),
        OP: lambda n: f"/observing-programs/{op_name(n * 7919 % ops)}",
        "page of the queue": lambda n: f"/board?offset={n * 100 % ops}",
        "page of an OP": lambda n: f"/board/op/{op_name(n * 7919 % ops)}",
        "page of proposals": lambda _n: "/board/proposals",
        "page of what is overdue": lambda _n: "/board/overdue",
        "page of inversions": lambda n: f"/board/inversions?offset={n * 100 % ops}",
        "page of the scans": lambda n: f"/board/scans?year={2024 + n % 2}",
    }
    rows = []
    for name, path in paths.items():
        latencies(port, token, 1, 3, path)
        for clients in (1, 8):
            before = cpu_s(pid)
            taken = latencies(port, token, clients, requests // clients, path)
            rows.append(
                {
                    "what": name,
                    "clients": clients,
                    "p50 ms": statistics.median(taken) * 1000,
                    "p99 ms": taken[int(len(taken) * 0.99) - 1] * 1000,
                    "processor ms": (cpu_s(pid) - before) / len(taken) * 1000,
                }
            )
    return rows


def claims(port: int, ledger: Ledger, url: str) -> dict[str, Any]:
    """All claimers go for all OPs: how long each request takes, and that each OP has one winner."""
    names = [f"claim_{number}" for number in range(CLAIMED)]
    for name in names:
        bring(ledger, name, State.PREPROCESSED)
    tokens = [ledger.add_token(f"c{number}", "scientist", actor="b")[1] for number in range(CLAIMERS)]
    taken: list[float] = []
    won: list[str] = []

    def work(number: int) -> None:
        client = Client(port, tokens[number])
        for turn in range(CLAIMED):
            name = names[(turn + number) % CLAIMED]
            start = time.perf_counter()
            status = client.ask(f"/observing-programs/{name}/claim", "POST")
            taken.append(time.perf_counter() - start)
            if status == 200:
                won.append(name)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLAIMERS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    wrong = sum(won.count(name) != 1 or len(ledger.history(name)) != 4 for name in names)
    taken.sort()
    return {
        "what": f"POST claim, {CLAIMERS} clients at {CLAIMED} OPs, {url.split(':')[0]}",
        "clients": CLAIMERS,
        "p50 ms": statistics.median(taken) * 1000,
        "p99 ms": taken[int(len(taken) * 0.99) - 1] * 1000,
        "requests/s": len(taken) / seconds,
        "wrong": wrong,
    }


def memory(port: int, pid: int, token: str, ops: int, requests: int, gold: Path) -> list[dict[str, Any]]:
    """Memory before many reads and after each quarter of them, between which gold is replaced."""
    rows: list[dict[str, Any]] = [{"what": "memory before many reads", "MB": memory_mb(pid)}]
    golds = NEW_GOLDS // 4
    each = requests // 4 // golds // 8
    for quarter in range(1, 5):
        start = time.perf_counter()
        for _ in range(golds):
            following = gold.with_suffix(".next")
            shutil.copyfile(gold, following)
            following.replace(gold)
            latencies(port, token, 8, each, lambda n: _either(n, ops))
        speed = each * 8 * golds / (time.perf_counter() - start)
        what = f"memory after {each * 8 * golds * quarter:,} reads and {golds * quarter} new golds"
        rows.append({"what": what, "clients": 8, "MB": memory_mb(pid), "requests/s": speed})
    return rows


def _either(number: int, ops: int) -> str:
    """An OP or the queue, by turns."""
    return f"/observing-programs/{op_name(number % ops)}" if number % 2 else "/queue?limit=20"


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """What is not as it should be, a sentence each."""
    out = [
        f"{row['what']}, {row['clients']} clients: p99 {row['p99 ms']:.0f} ms, not below {most:g}."
        for row in rows
        if (most := _most_ms(row["what"])) is not None and row["p99 ms"] >= most
    ]
    out += [f"{row['wrong']} claims were lost or doubled." for row in rows if row.get("wrong")]
    taken = [row["MB"] for row in rows if "MB" in row]
    grown = taken[-1] - taken[-2] if taken else 0.0
    if grown > GROWTH_MB:
        out.append(f"The last quarter of the reads took {grown:.1f} MB, more than {GROWTH_MB:g}.")
    return out


def _most_ms(what: str) -> float | None:
    if what in (QUEUE, OP):
        return READ_P99_MS
    return PAGE_P99_MS if what.startswith("page of") else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transitions", type=int, default=200_000)
    parser.add_argument("--ops", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=2_000, help="reads for the figure of memory")
    parser.add_argument("--each", type=int, default=240, help="requests for each figure of latency")
    parser.add_argument("--databases", nargs="+", default=list(kit.DATABASES), choices=kit.DATABASES)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    ops = min(given.ops, given.transitions // len(STEPS))
    wrong = []
    for database in given.databases:
        with kit.place(database) as url, tempfile.TemporaryDirectory(prefix="l2_bench_") as folder:
            data = Path(folder)
            fill(url, given.transitions, given.transitions // ops)
            make_gold(data / "l2.duckdb", [op_name(number) for number in range(ops)])
            with Ledger.open(url) as ledger, served(data, url) as (port, pid):
                token = ledger.add_token("reader", "reader", actor="b")[1]
                rows = []
                if "reads" in given.parts:
                    rows += reads(port, pid, token, ops, given.each)
                if "claims" in given.parts:
                    rows.append(claims(port, ledger, url))
                # What is kept in memory does not depend on the database.
                if "memory" in given.parts and database == given.databases[0]:
                    rows += memory(port, pid, token, ops, given.requests, data / "l2.duckdb")
            title = f"service, {database}, {given.transitions:,} transitions of {ops:,} OPs"
            kit.report(title, rows, as_json=given.json)
            wrong += [f"{database}: {sentence}" for sentence in missed(rows)]
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
