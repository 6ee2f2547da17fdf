with tasks as (
    select * from {{ ref('stg_batch__job_tasks') }}
),

final as (
    select
        job_id,
        job_name,
        job_status as status,
        submitted_at,
        job_finished_at as finished_at,
        date_diff('millisecond', submitted_at, job_finished_at) / 1000.0::double as seconds,
        count(batch_id) as task_count,
        count(batch_id) filter (where status = 'FAILED') as failed_task_count,
        count(batch_id) filter (where role = 'retry') as retry_task_count,
        coalesce(sum(records), 0)::bigint as records,
        coalesce(sum(rejected), 0)::bigint as rejected,
        coalesce(sum(requests), 0)::bigint as requests,
        coalesce(sum(turned_down), 0)::bigint as turned_down,
        coalesce(sum(received_bytes), 0)::bigint as received_bytes,
        coalesce(sum(token_wait_s), 0)::double as token_wait_s
    from tasks
    group by all
)

select * from final
