"""Where the scans have looked: no day is complete that came after, and what failed is never out of sight."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import duckdb

from dagster_l2.answers.scanned import Scanned


def test_a_window_counts_until_it_was_read_and_a_failed_one_that_was_asked_for_too_early_is_seen() -> None:
    with duckdb.connect() as connection:
        connection.execute(
            """
            create table scan_coverage as
            select
                source, 'DOWNLOADED' as status, 100e0 as availability_pct,
                timestamp '2024-12-30' as window_start,
                timestamp '2031-01-01' as window_end, timestamp '2025-01-02 10:00:00' as finished_at
            from (values ('long'), ('early')) as sources (source)
            union all
            select
                'early', 'FAILED', null,
                timestamp '2027-03-01', timestamp '2027-03-02', timestamp '2025-01-02'
            """
        )

        def ask(query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
            found = connection.execute(query, list(parameters))
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

        scanned = Scanned(ask)
        sources = {row["source"]: row for row in scanned.sources()}
        assert (sources["long"]["first_year"], sources["long"]["last_year"]) == (2024, 2025)
        assert list(scanned.standing_by_day("long", 2025)) == [date(2025, 1, 1), date(2025, 1, 2)]
        assert (sources["early"]["windows"], sources["early"]["open_windows"]) == (2, 1)
        assert scanned.standing_by_day("early", 2027) == {date(2027, 3, 1): "failed"}
