with source as (
    select * from {{ source('bronze', 'annotations') }}
),

renamed as (
    select
        annotation_id::bigint as annotation_id,
        op_id,
        kind,
        actor,
        recorded_at::timestamp as recorded_at,
        details::json as details
    from source
)

select * from renamed
