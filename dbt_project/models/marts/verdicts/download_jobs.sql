with tasks as (
    select * from {{ ref('stg_batch__job_tasks') }}
),

causes_of_tasks as (
    select
        job_id,
        unnest(map_entries(json_transform(retries, '"MAP(VARCHAR, BIGINT)"'))) as cause
    from tasks
    where retries is not null
),

causes as (
    select
        job_id,
        cause.key as cause,
        sum(cause.value)::bigint as times
    from causes_of_tasks
    group by all
),

retries as (
    select
        job_id,
        map_from_entries(list(row(cause, times) order by cause)) as retries
    from causes
    group by job_id
),

series as (
    select
        job_id,
        json_transform(
            over_time,
            '{"start_s": "BIGINT", "step_s": "BIGINT", "api_requests": ["BIGINT"], "turned_down": ["BIGINT"]}'
        ) as counts
    from tasks
    where over_time is not null
),

steps as (
    select
        *,
        unnest(range(len(counts.api_requests))) as step
    from series
),

moments as (
    select
        job_id,
        epoch_ms(1000 * (counts.start_s + step * counts.step_s))::timestamp as moment,
        sum(counts.api_requests[step + 1])::bigint as requests,
        sum(counts.turned_down[step + 1])::bigint as turned_down
    from steps
    group by all
),

rates as (
    select
        job_id,
        list(
            struct_pack(moment := moment, requests := requests, turned_down := turned_down)
            order by moment
        ) as requests_over_time
    from moments
    group by job_id
),

jobs as (
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
),

final as (
    select
        jobs.*,
        coalesce(retries.retries, map_from_entries([])) as retries,
        coalesce(rates.requests_over_time, []) as requests_over_time
    from jobs
    left join retries on jobs.job_id = retries.job_id
    left join rates on jobs.job_id = rates.job_id
)

select * from final
