-- A view: what is kept of each OP is a table already, and gold has this as one.
{{ config(materialized='view') }}

with states as (
    select * from {{ ref('int_op_last_transition') }}
),

verdicts as (
    select * from {{ ref('op_verdicts') }}
),

final as (
    select
        states.op_id,
        states.to_state as state,
        states.occurred_at as since,
        states.seq,
        states.actor,
        states.cause,
        states.inversion_id,
        date_diff('microsecond', states.occurred_at, {{ built_at() }}) / 86400e6 as days_in_state,
        states.inputs_hash as recorded_inputs_hash,
        -- From Working on a change of the inputs is shown and never acted on.
        states.to_state in ('Working', 'Inverted', 'Published')
        and states.inputs_hash is not null
        and coalesce(states.inputs_hash <> verdicts.inputs_hash, true) as inputs_changed,
        states.published_inversion_ids,
        states.last_published_at,
        states.details
    from states
    left join verdicts on states.op_id = verdicts.op_id
)

select * from final
