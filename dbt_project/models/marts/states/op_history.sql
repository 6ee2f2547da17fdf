with transitions as (
    select * from {{ ref('stg_ledger__transitions') }}
),

spans as (
    select
        *,
        lead(occurred_at) over (partition by op_id order by seq) as ended_at
    from transitions
),

final as (
    select
        transition_id,
        op_id,
        seq,
        nullif(from_state, '') as from_state,
        to_state,
        occurred_at,
        ended_at,
        date_diff('microsecond', occurred_at, ended_at) / 1e6 as duration,
        recorded_at,
        actor,
        cause,
        inputs_hash,
        rule_version,
        inversion_id,
        run_id,
        details::varchar as details
    from spans
)

select * from final
