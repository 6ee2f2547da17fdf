"""A REACH day of 288 chunks at servers of six quotas: how near to the ideal time, rate unknown and known.

Runs the real limiter on a virtual clock, so a day takes a second.
"""

from __future__ import annotations

import argparse
import itertools
import sys

from rate_world import DAY_ONE, QuotaServer, ideal_s, simulate

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
SAYS = ("headers", "retry_after", "bare")
FIRST_DAY, SECOND_DAY = 1.15, 1.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="days simulated per line; the worst counts")
    parser.add_argument("--only", choices=[*QUOTAS], help="one quota")
    parser.add_argument("--processes", type=int, default=1, help="share the four workers among so many")
    parser.add_argument(
        "--lease", type=float, default=0.0, help="seconds of a lease; 0: one request at a time"
    )
    arguments = parser.parse_args()
    seeds = range(arguments.seeds)
    quotas = {name: quota for name, quota in QUOTAS.items() if arguments.only in (None, name)}
    print(
        f"{'quota':8} {'window':8} {'says':12} {'ideal s':>8} | {'day 1 s':>8} {'mean':>6} {'worst':>6}"
        f" {'429':>4} | {'day 2 s':>8} {'mean':>6} {'worst':>6} {'429':>4}"
    )
    missed = lost = 0
    for (name, quota), kind, says in itertools.product(quotas.items(), KINDS, SAYS):
        ideal = ideal_s(quota)
        days: tuple[list[float], list[float]] = ([], [])
        turned_down = [0, 0]
        for seed in seeds:
            kept: object = None
            for day in (0, 1):
                # The fixed windows begin at another moment of the run with each seed.
                server = QuotaServer(quota, kind, says, phase=quota.seconds * (seed * 0.37 % 1))
                done = simulate(
                    server,
                    kept=kept,
                    seed=seed,
                    start=DAY_ONE + day * 86400,
                    processes=arguments.processes,
                    lease_s=arguments.lease,
                )
                kept = done.kept
                lost += 288 - done.arrived
                days[day].append(done.seconds)
                turned_down[day] += done.turned_down
        first, second = (([s / ideal for s in day]) for day in days)
        n = len(seeds)
        ok = max(first) <= FIRST_DAY and max(second) <= SECOND_DAY
        missed += not ok
        print(
            f"{name:8} {kind:8} {says:12} {ideal:8.1f} | {sum(days[0]) / n:8.1f} {sum(first) / n:6.3f}"
            f" {max(first):6.3f} {turned_down[0] / n:4.0f} | {sum(days[1]) / n:8.1f} {sum(second) / n:6.3f}"
            f" {max(second):6.3f} {turned_down[1] / n:4.0f}{'' if ok else '   over'}"
        )
    print(f"lost {lost}; lines over {FIRST_DAY} (day 1) or {SECOND_DAY} (day 2): {missed}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
