{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='op_id',
        on_schema_change='append_new_columns',
        pre_hook="{{ keep_beginning('transition_id', ref('stg_ledger__transitions')) }}",
    )
}}

{%- set transitions = ref('stg_ledger__transitions') -%}

-- The import is a name and no CTE: DuckDB keeps a CTE that is read several times, here all columns of all transitions.
with
{% if is_incremental() %}
    {%- set steps = 'steps' %}
    {%- set is_told = "to_state = 'Published' and transition_id > getvariable('int_op_last_transition_through')" %}
    fresh as (
        select * from {{ transitions }}
        where transition_id > getvariable('int_op_last_transition_through')
    ),

    -- What an OP had before counts as its step before those that are new.
    steps as (
        select * from fresh
        union all by name
        select * exclude (published_inversion_ids, last_published_at) from {{ this }}
        where op_id in (select fresh.op_id from fresh)
    ),

    kept as (
        select
            op_id,
            published_inversion_ids,
            last_published_at
        from {{ this }}
        where op_id in (select fresh.op_id from fresh)
    ),
{% else %}
    {%- set steps = transitions %}
    {%- set is_told = "to_state = 'Published'" %}
    kept as (
        select
            null::varchar as op_id,
            null::varchar[] as published_inversion_ids,
            null::timestamp as last_published_at
        where false
    ),
{% endif %}

-- In one reading of narrow columns; the wide ones are then read of the last transitions alone.
ends as (
    select
        op_id,
        max_by(transition_id, seq) as transition_id,
        -- One sort of all lists, instead of one for each group.
        [
            inversion['inversion_id']
            for inversion in list_sort(
                list({ 'seq': seq, 'inversion_id': inversion_id }) filter (
                    where {{ is_told }} and inversion_id is not null
                )
            )
        ] as published_inversion_ids,
        max(occurred_at) filter (where {{ is_told }}) as last_published_at
    from {{ steps }}
    group by op_id
),

latest as (
    select
        steps.transition_id,
        steps.op_id,
        steps.seq,
        steps.to_state,
        steps.occurred_at,
        steps.recorded_at,
        steps.actor,
        steps.cause,
        steps.inputs_hash,
        steps.inversion_id,
        steps.details,
        ends.published_inversion_ids,
        ends.last_published_at
    from {{ steps }} as steps
    inner join ends on steps.transition_id = ends.transition_id
),

unnamed as (
    select op_id from latest
    where inputs_hash is null
),

-- Where the last transition names no inputs, the last that did: max_by passes over nulls.
named_before as (
    select
        op_id,
        max_by(inputs_hash, seq) as inputs_hash
    from {{ steps }}
    where op_id in (select unnamed.op_id from unnamed)
    group by op_id
),

final as (
    select
        latest.transition_id,
        latest.op_id,
        latest.seq,
        latest.to_state,
        latest.occurred_at,
        latest.recorded_at,
        latest.actor,
        latest.cause,
        coalesce(latest.inputs_hash, named_before.inputs_hash) as inputs_hash,
        latest.inversion_id,
        latest.details,
        list_concat(kept.published_inversion_ids, coalesce(latest.published_inversion_ids, []))
            as published_inversion_ids,
        greatest(kept.last_published_at, latest.last_published_at) as last_published_at
    from latest
    left join named_before on latest.op_id = named_before.op_id
    left join kept on latest.op_id = kept.op_id
)

select * from final
