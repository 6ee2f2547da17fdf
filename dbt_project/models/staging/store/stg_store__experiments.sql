with source as (
    select * from {{ source('bronze', 'experiments') }}
),

renamed as (
    select
        experiment_id,
        experiment_description,
        create_date::timestamp as create_date,
        update_date::timestamp as update_date,
        scanned_at::timestamp as scanned_at,
        job_id,
        content_hash
    from source
)

select * from renamed
