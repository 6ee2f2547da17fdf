"""A REACH day of 288 chunks at servers of six quotas: how near to the ideal time, rate unknown and known.

Runs the real limiter on a virtual clock, so a day takes a second. With ``--real`` the real downloader asks
a real server over HTTP, on a clock that goes some times faster; ``--real --each`` has every quota once and
every kind of server once, two at a time, in about ten minutes on a quiet machine. The aims stand beside
the figures, and the exit code says whether all are met and all chunks arrived.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from rate_world import DAY_ONE, QuotaServer, ideal_s, simulate
from reach_real import IN_FLIGHT, two_days

from dagster_l2.batch.headers import Quota

QUOTAS = {
    "10/s": Quota(10, 1),
    "3/s": Quota(3, 1),
    "2/s": Quota(2, 1),
    "100/min": Quota(100, 60),
    "60/min": Quota(60, 60),
    "30/min": Quota(30, 60),
}
KINDS = ("sliding", "fixed")
SAYS = ("headers", "retry_after", "bare", "lying")
EACH = (
    ("30/min", "fixed", "headers"),
    ("2/s", "sliding", "lying"),
    ("3/s", "fixed", "retry_after"),
    ("60/min", "sliding", "bare"),
    ("10/s", "sliding", "headers"),
    ("100/min", "fixed", "bare"),
)
"""For ``--each``, the longest first."""
_AT_ONCE = 2
FIRST_DAY, SECOND_DAY = 1.15, 1.05
SPEEDS = {"10/s": 1.0, "3/s": 1.0, "2/s": 1.0, "100/min": 2.0}
"""How much faster the clock goes with ``--real``, where not 5 times: what the machine itself needs grows
with it, too."""

Days = list[tuple[int, float, int]]
"""Chunks that arrived, seconds, requests turned down; of the first day, and the second."""


def simulated(arguments: argparse.Namespace, quota: Quota, kind: str, says: str) -> Iterator[Days]:
    """Each seed's two days on the virtual clock."""
    for seed in range(arguments.seeds):
        kept: object = None
        days: Days = []
        for day in (0, 1):
            # The fixed windows begin at another moment of the run with each seed.
            server = QuotaServer(quota, kind, says, phase=quota.seconds * (seed * 0.37 % 1))
            done = simulate(
                server,
                kept=kept,
                seed=seed,
                start=DAY_ONE + day * 86400,
                workers=arguments.workers,
                processes=arguments.processes,
                lease_s=arguments.lease,
            )
            kept = done.kept
            days.append((done.arrived, done.seconds, done.turned_down))
        yield days


def real(arguments: argparse.Namespace, quota: Quota, kind: str, says: str, speed: float) -> Iterator[Days]:
    """Two days over HTTP."""
    for seed in range(arguments.seeds):
        servers = [QuotaServer(quota, kind, says, phase=quota.seconds * (seed * 0.37 % 1)) for _ in range(2)]
        yield [(day.arrived, day.seconds, day.turned_down) for day in two_days(servers, speed=speed)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, help="days per line, of which the worst counts; 10, --real: 1")
    parser.add_argument("--only", choices=[*QUOTAS], help="one quota")
    parser.add_argument("--kind", choices=KINDS, help="one kind of window")
    parser.add_argument("--says", choices=SAYS, help="one kind of answers")
    parser.add_argument("--processes", type=int, default=1, help="share the workers among so many")
    parser.add_argument(
        "--lease", type=float, default=0.0, help="seconds of a lease; 0: one request at a time"
    )
    parser.add_argument("--real", action="store_true", help="over HTTP, by the real downloader")
    parser.add_argument("--speed", type=float, help="of the clock with --real")
    parser.add_argument("--each", action="store_true", help="with --real: each quota and each kind once")
    parser.add_argument("--workers", type=int, default=4, help="requests under way, not with --real")
    arguments = parser.parse_args()
    if arguments.each:
        return each()
    arguments.seeds = arguments.seeds or (1 if arguments.real else 10)
    chosen = itertools.product(
        [name for name in QUOTAS if arguments.only in (None, name)],
        [kind for kind in KINDS if arguments.kind in (None, kind)],
        [says for says in SAYS if arguments.says in (None, says)],
    )
    print(
        f"{'quota':8} {'window':8} {'says':12} {'ideal s':>8} | {'day 1 s':>8} {'mean':>6} {'worst':>6}"
        f" {'aim':>6} {'429':>4} | {'day 2 s':>8} {'mean':>6} {'worst':>6} {'aim':>6} {'429':>4}"
    )
    missed = lost = 0
    for name, kind, says in chosen:
        quota = QUOTAS[name]
        if arguments.real:
            ideal = ideal_s(quota, workers=IN_FLIGHT)
            speed = arguments.speed or SPEEDS.get(name, 5.0)
            found = list(real(arguments, quota, kind, says, speed))
        else:
            ideal = ideal_s(quota, workers=arguments.workers)
            found = list(simulated(arguments, quota, kind, says))
        ok, line = _line(found, ideal)
        gone = sum(288 - arrived for days in found for arrived, _seconds, _turned_down in days)
        lost += gone
        missed += not ok
        said = f"{'' if ok else '   over'}{f'   {gone} lost' if gone else ''}"
        print(f"{name:8} {kind:8} {says:12} {ideal:8.1f}{line}{said}", flush=True)
    print(f"lost {lost}; lines over {FIRST_DAY} (day 1) or {SECOND_DAY} (day 2): {missed}")
    return 1 if lost or missed else 0


def each() -> int:
    """Every line of `EACH` in a process of its own; 0 when all chunks of all arrived in time."""

    def run(line: tuple[str, str, str]) -> tuple[int, list[str]]:
        quota, kind, says = line
        command = [sys.executable, __file__, "--real", "--only", quota, "--kind", kind, "--says", says]
        done = subprocess.run(command, capture_output=True, text=True)
        if not done.stdout:
            raise SystemExit(done.stderr)
        return done.returncode, done.stdout.splitlines()

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        done = list(pool.map(run, EACH))
    print(done[0][1][0], *(lines[1] for _code, lines in done), sep="\n")
    missed = sum(code != 0 for code, _lines in done)
    print(f"lines over {FIRST_DAY} (day 1) or {SECOND_DAY} (day 2), or with chunks lost: {missed}")
    return 1 if missed else 0


def _line(found: list[Days], ideal: float) -> tuple[bool, str]:
    """Whether both aims are met, and the figures of both days."""
    ok, line = True, ""
    for day, aim in enumerate((FIRST_DAY, SECOND_DAY)):
        seconds = [days[day][1] for days in found]
        mean, worst = sum(seconds) / len(seconds), max(seconds)
        turned_down = sum(days[day][2] for days in found) / len(found)
        ok = ok and worst <= aim * ideal
        line += f" | {mean:8.1f} {mean / ideal:6.3f} {worst / ideal:6.3f} ≤ {aim:.2f} {turned_down:4.0f}"
    return ok, line


if __name__ == "__main__":
    sys.exit(main())
