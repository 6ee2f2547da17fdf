with transitions as (
    select * from {{ ref('stg_ledger__transitions') }}
),

verdicts as (
    select * from {{ ref('op_verdicts') }}
),

latest as (
    select
        op_id,
        to_state as state,
        occurred_at as since,
        seq,
        actor,
        cause,
        inversion_id,
        details
    from transitions
    qualify row_number() over (partition by op_id order by seq desc) = 1
),

-- max_by passes over nulls: the last inputs that were named at all.
histories as (
    select
        op_id,
        max_by(inputs_hash, seq) as recorded_inputs_hash,
        coalesce(
            list(inversion_id order by seq) filter (where to_state = 'Published' and inversion_id is not null), []
        ) as published_inversion_ids,
        max(occurred_at) filter (where to_state = 'Published') as last_published_at
    from transitions
    group by op_id
),

final as (
    select
        latest.op_id,
        latest.state,
        latest.since,
        latest.seq,
        latest.actor,
        latest.cause,
        latest.inversion_id,
        date_diff('microsecond', latest.since, {{ built_at() }}) / 86400e6 as days_in_state,
        histories.recorded_inputs_hash,
        -- From Working on a change of the inputs is shown and never acted on.
        latest.state in ('Working', 'Inverted', 'Published')
        and histories.recorded_inputs_hash is not null
        and coalesce(histories.recorded_inputs_hash <> verdicts.inputs_hash, true) as inputs_changed,
        histories.published_inversion_ids,
        histories.last_published_at,
        latest.details::varchar as details
    from latest
    inner join histories on latest.op_id = histories.op_id
    left join verdicts on latest.op_id = verdicts.op_id
)

select * from final
