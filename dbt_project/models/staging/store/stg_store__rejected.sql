with source as (
    select * from {{ source('bronze', 'rejected') }}
),

renamed as (
    select
        table_name,
        record_id,
        reason,
        raw_json,
        scanned_at::timestamp as scanned_at,
        job_id,
        content_hash
    from source
)

select * from renamed
