{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='transition_id',
        on_schema_change='append_new_columns',
        pre_hook="{{ keep_beginning('transition_id', ref('stg_ledger__transitions')) }}",
    )
}}

{%- set transitions = ref('stg_ledger__transitions') -%}

-- The import is a name and no CTE: DuckDB keeps a CTE that is read twice, here every column of every transition.
with
-- In a pass: what is new, and the states that it ends, which are the last ones of their OPs.
{% if is_incremental() %}
    fresh as (
        select * replace (details::varchar as details) from {{ transitions }}
        where transition_id > getvariable('op_history_through')
    ),

    concerned as (
        select * from fresh
        union all by name
        select * exclude (ended_at, duration) from {{ this }}
        where ended_at is null and op_id in (select fresh.op_id from fresh)
    ),

    moments as (
        select * from concerned
    ),
{% else %}
    concerned as (
        select * replace (details::varchar as details) from {{ transitions }}
    ),

    moments as (
        select * from {{ transitions }}
    ),
{% endif %}

-- The window gets what it needs and no more: to sort whole rows takes gigabytes.
ends as (
    select
        transition_id,
        lead(occurred_at) over (partition by op_id order by seq) as ended_at
    from moments
),

final as (
    select
        concerned.transition_id,
        concerned.op_id,
        concerned.seq,
        nullif(concerned.from_state, '') as from_state,
        concerned.to_state,
        concerned.occurred_at,
        ends.ended_at,
        date_diff('microsecond', concerned.occurred_at, ends.ended_at) / 1e6 as duration,
        concerned.recorded_at,
        concerned.actor,
        concerned.cause,
        concerned.inputs_hash,
        concerned.rule_version,
        concerned.inversion_id,
        concerned.run_id,
        concerned.details
    from concerned
    inner join ends on concerned.transition_id = ends.transition_id
)

select * from final
