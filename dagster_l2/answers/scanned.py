"""What the scans brought and where they have looked, from gold, as the board tells it.

Nothing is scanned here (`scans`) and nothing drawn (`service`).
"""

from __future__ import annotations

from datetime import date
from typing import Any

from dagster_l2.pipeline.gold import Ask, Row

STORE = "metadata_store"

# A window may reach far past the moment at which it was read, and of the days after that nothing is known.
# One that was asked for too early keeps its first day, so that what failed there is seen.
_SEEN = """seen as (
        select
            * replace (
                least(window_end, greatest(coalesce(finished_at, window_end), window_start + interval 1 day))
                as window_end
            )
        from scan_coverage
        where window_start < window_end
    )"""

_SOURCES = f"""
    with {_SEEN}

    select
        source,
        year(min(window_start)) as first_year,
        year(max(window_end) - interval 1 microsecond) as last_year,
        count(*) as windows,
        count(*) filter (where status in ('FAILED', 'PENDING')) as open_windows
    from seen
    group by source
    order by source <> ?, source
"""

# The order of the cases is that of the trouble: of several windows over one day the worst counts.
_DAYS = f"""
    with years as (
        select make_timestamp(?, 1, 1, 0, 0, 0) as begins, make_timestamp(?, 1, 1, 0, 0, 0) as ends
    ),

    {_SEEN},

    windows as (
        select
            case
                when status = 'FAILED' then 4
                when status = 'PENDING' then 3
                when status = 'DOWNLOADED' and availability_pct < 100 then 2
                when status = 'DOWNLOADED' then 1
                else 0
            end as trouble,
            greatest(window_start, begins) as first_moment,
            least(window_end, ends) - interval 1 microsecond as last_moment
        from seen
        cross join years
        where source = ? and window_start < ends and window_end > begins
    ),

    days as (
        select
            trouble,
            unnest(generate_series(first_moment::date, last_moment::date, interval 1 day))::date as day
        from windows
    )

    select day, max(trouble) as trouble from days group by day order by day
"""
STANDINGS = ("no data", "complete", "in part", "under way", "failed")
"""How a window stands, the greater the trouble the later."""

_WINDOWS = """
    select
        window_start, window_end, query, status, records, expected_records, availability_pct, attempts,
        seconds, finished_at, error_type, error_message, count(*) over () as total
    from scan_coverage
    where source = ? and window_start is not null
    order by
        status not in ('FAILED', 'PENDING'), coalesce(availability_pct, 100) >= 100, window_start desc, query
    limit ? offset ?
"""

_SCANS = """
    with versions as (
        select
            job_id,
            min(seen_at) as seen_at,
            count(*) filter (where change_type = 'new') as new_records,
            count(*) filter (where change_type = 'changed') as changed_records
        from dataset_versions
        group by job_id
    ),

    refused as (
        select job_id, min(rejected_at) as seen_at, count(*) as rejected_records
        from rejected_records
        group by job_id
    ),

    jobs as (
        select job_id, submitted_at as seen_at, status, seconds, requests, records
        from download_jobs
        where job_name = ?
    )

    select
        job_id, coalesce(jobs.seen_at, versions.seen_at, refused.seen_at) as scanned_at, status, seconds,
        requests, records, coalesce(new_records, 0) as new_records,
        coalesce(changed_records, 0) as changed_records, coalesce(rejected_records, 0) as rejected_records,
        count(*) over () as total
    from jobs
    full outer join versions using (job_id)
    full outer join refused using (job_id)
    order by scanned_at desc, job_id
    limit ? offset ?
"""

_CHANGES = """
    with changes as (
        select unnest(changed_fields) as field, dataset_id, seen_at
        from dataset_versions
        where change_type = 'changed'
    )

    select
        field, count(*) as changes, count(distinct dataset_id) as datasets, max(seen_at) as last_seen_at
    from changes
    group by field
    order by changes desc, field
"""

_REJECTED = """
    select
        rejected_at, table_name, record_id, reason, last_accepted_at,
        coalesce(last_accepted_at > rejected_at, false) as is_mended, job_id, count(*) over () as total
    from rejected_records
    order by rejected_at desc, table_name, record_id, content_hash
    limit ? offset ?
"""


class Scanned:
    """What is asked of gold about scans; see `service.backend.Scanned`.

    Parameters
    ----------
    ask
        Who reads gold.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def sources(self) -> list[Row]:
        """The sources with windows: the years they lie in, how many there are, and how many are open."""
        return self._ask(_SOURCES, [STORE])

    def standing_by_day(self, source: str, year: int) -> dict[date, str]:
        """How each day of a year stands that some window of a source covers: as the worst of its windows.

        One of `STANDINGS`; a day in no window is not in it.
        """
        rows = self._ask(_DAYS, [year, year + 1, source])
        return {row["day"]: STANDINGS[row["trouble"]] for row in rows}

    def windows(self, source: str, offset: int, limit: int) -> tuple[list[Row], int]:
        """The windows of a source, those that are not complete first, then the newest; how many there are."""
        return _counted(self._ask(_WINDOWS, [source, limit, offset]))

    def scans(self, offset: int, limit: int) -> tuple[list[Row], int]:
        """The scans that ended or brought something, newest first, and how many there are."""
        return _counted(self._ask(_SCANS, [STORE, limit, offset]))

    def changes_by_field(self) -> list[Row]:
        """How often each field of a dataset record has changed between two scans, most often first."""
        return self._ask(_CHANGES)

    def rejected(self, offset: int, limit: int) -> tuple[list[Row], int]:
        """Records that a scan could not read, newest first, and how many there are."""
        return _counted(self._ask(_REJECTED, [limit, offset]))


def _counted(rows: list[Row]) -> tuple[list[Row], int]:
    total: Any = rows[0]["total"] if rows else 0
    return [{name: value for name, value in row.items() if name != "total"} for row in rows], int(total)
