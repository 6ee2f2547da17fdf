with attempts as (
    select * from {{ ref('stg_batch__attempts') }}
),

final as (
    select
        source,
        query,
        window_start,
        window_end,
        status,
        records,
        expected_records,
        availability_pct,
        count(*) over (partition by source, query, window_start, window_end) as attempts,
        seconds,
        bytes,
        error_type,
        error_message,
        finished_at
    from attempts
    qualify row_number() over (
        partition by source, query, window_start, window_end order by attempt_id desc
    ) = 1
)

select * from final
