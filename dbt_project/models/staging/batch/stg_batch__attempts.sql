with source as (
    select * from {{ source('bronze', 'attempts') }}
),

renamed as (
    select
        attempt_id::bigint as attempt_id,
        run_id,
        job_id,
        unit_id,
        source,
        query,
        window_start::timestamp as window_start,
        window_end::timestamp as window_end,
        status,
        records::bigint as records,
        expected_records::bigint as expected_records,
        availability_pct::double as availability_pct,
        seconds::double as seconds,
        bytes::bigint as bytes,
        artifact,
        error_type,
        error_message,
        started_at::timestamp as started_at,
        finished_at::timestamp as finished_at,
        recorded_at::timestamp as recorded_at
    from source
)

select * from renamed
