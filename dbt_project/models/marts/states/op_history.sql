-- A view: bronze has all of it already, and when a state has ended is quickly found. Gold has it as a table.
{{ config(materialized='view') }}

{%- set transitions = ref('stg_ledger__transitions') %}

-- The window gets what it needs and no more: to sort whole rows takes gigabytes. So does a CTE that is read twice:
-- DuckDB keeps it with all columns.
with ends as (
    select
        transition_id,
        lead(occurred_at) over (partition by op_id order by seq) as ended_at
    from {{ transitions }}
),

final as (
    select
        transitions.transition_id,
        transitions.op_id,
        transitions.seq,
        nullif(transitions.from_state, '') as from_state,
        transitions.to_state,
        transitions.occurred_at,
        ends.ended_at,
        date_diff('microsecond', transitions.occurred_at, ends.ended_at) / 1e6 as duration,
        transitions.recorded_at,
        transitions.actor,
        transitions.cause,
        transitions.inputs_hash,
        transitions.rule_version,
        transitions.inversion_id,
        transitions.run_id,
        transitions.details
    from {{ transitions }} as transitions
    inner join ends on transitions.transition_id = ends.transition_id
)

select * from final
