with attempts as (
    select * from {{ ref('stg_batch__attempts') }}
),

-- Two sweeps ask for the same: which of them it was, and in what form, tells units of work apart, not what
-- they cover.
asked as (
    select
        * replace (
            case
                when json_valid(query)
                    then json_merge_patch(
                        query, '{"sweep": null, "format": null, "schema_version": null}'
                    )::varchar
                else query
            end as query
        )
    from attempts
),

-- An attempt writes a row when it starts and one when it ends; one that was killed has only the first.
latest as (
    select
        *,
        greatest(
            count(*) filter (where status = 'PENDING') over same_window,
            count(*) filter (where status <> 'PENDING') over same_window
        ) as attempts
    from asked
    window same_window as (partition by source, query, window_start, window_end)
    qualify row_number() over (
        partition by source, query, window_start, window_end order by attempt_id desc
    ) = 1
),

-- As records arrive, windows are cut smaller: a newer one takes the place of an older one that it overlaps.
superseded as (
    select distinct older.attempt_id
    from latest as older
    inner join latest as newer
        on
            older.source = newer.source
            and older.query = newer.query
            and older.window_start < newer.window_end
            and older.window_end > newer.window_start
            and older.attempt_id < newer.attempt_id
),

final as (
    select
        latest.source,
        latest.query,
        latest.window_start,
        latest.window_end,
        latest.status,
        latest.records,
        latest.expected_records,
        latest.availability_pct,
        latest.attempts,
        latest.seconds,
        latest.bytes,
        latest.error_type,
        latest.error_message,
        latest.finished_at
    from latest
    left join superseded on latest.attempt_id = superseded.attempt_id
    where superseded.attempt_id is null
)

select * from final
