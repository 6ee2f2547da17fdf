with source as (
    select * from {{ source('bronze', 'missing') }}
),

renamed as (
    select
        table_name,
        record_id,
        missing_since::timestamp as missing_since,
        scanned_at::timestamp as scanned_at,
        job_id
    from source
)

select * from renamed
