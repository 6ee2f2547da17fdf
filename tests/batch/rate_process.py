"""A process of its own that asks a shared rate from two threads and writes each grant down at once."""

from __future__ import annotations

import os
import sys
import threading
import time

import sqlalchemy as sa

from dagster_l2.batch.headers import Quota
from dagster_l2.batch.leases import DatabaseRates
from dagster_l2.batch.rate import Limiter
from dagster_l2.batch.rate_terms import RateSettings


def open_engine(url: str, schema: str) -> sa.Engine:
    if url.startswith("sqlite"):
        return sa.create_engine(url, connect_args={"timeout": 30})
    return sa.create_engine(url, execution_options={"schema_translate_map": {None: schema}})


def main() -> None:
    url, schema, path, requests, window_s, run_s = sys.argv[1:]
    settings = RateSettings(initial=25.0, quotas=(Quota(int(requests), float(window_s)),))
    engine = open_engine(url, schema)
    limiter = Limiter(DatabaseRates(engine, "server/test"), settings)
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    end = time.monotonic() + float(run_s)

    def work() -> None:
        while time.monotonic() < end:
            granted_at = limiter.acquire()
            os.write(out, f"{granted_at!r}\n".encode())
            limiter.succeeded(granted_at, {})

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    limiter.close()
    print(limiter.stats().transactions)
    engine.dispose()


if __name__ == "__main__":
    main()
