with source as (
    select * from {{ source('bronze', 'transitions') }}
),

renamed as (
    select
        transition_id::bigint as transition_id,
        op_id,
        seq::bigint as seq,
        from_state,
        to_state,
        occurred_at::timestamp as occurred_at,
        recorded_at::timestamp as recorded_at,
        actor,
        cause,
        inputs_hash,
        rule_version,
        inversion_id,
        run_id,
        details
    from source
)

select * from renamed
