with source as (
    select * from {{ source('bronze', 'job_tasks') }}
),

renamed as (
    select
        job_id,
        job_name,
        job_status,
        submitted_at::timestamp as submitted_at,
        job_finished_at::timestamp as job_finished_at,
        task_id,
        role,
        task_group,
        batch_id,
        status,
        failure_class,
        error,
        started_at::timestamp as started_at,
        finished_at::timestamp as finished_at,
        windows::bigint as windows,
        items::bigint as items,
        items_reused::bigint as items_reused,
        records::bigint as records,
        rejected::bigint as rejected,
        rows::bigint as row_count,
        api_requests::bigint as requests,
        turned_down::bigint as turned_down,
        received_bytes::bigint as received_bytes,
        token_wait_s::double as token_wait_s,
        seconds::double as seconds,
        retries,
        over_time
    from source
)

select * from renamed
