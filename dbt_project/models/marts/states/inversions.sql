{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='inversion_id',
        on_schema_change='append_new_columns',
        pre_hook="{{ follow(ref('int_op_last_transition')) }}",
    )
}}

{%- set said = {
    'instrument_program_id': 'VARCHAR',
    'claimed_by': 'VARCHAR',
    'commit': 'VARCHAR',
    'bucket': 'VARCHAR',
    'asdf_object_key': 'VARCHAR',
    'dataset_ids': 'JSON',
    'spectral_lines': 'JSON',
} -%}

with transitions as (
    select * from {{ ref('stg_ledger__transitions') }}
    {% if is_incremental() %}
        where transition_id > getvariable('inversions_through')
    {% endif %}
),

-- One reading of the JSON for all that is wanted of it.
read as (
    select
        inversion_id,
        op_id,
        seq,
        to_state,
        occurred_at,
        actor,
        json_transform(details, '{{ said | tojson }}') as said
    from transitions
    where inversion_id is not null
),

-- max_by passes over nulls: what was said last is what holds, and what a later step left out stays. Lists stay texts
-- until it is known which holds. An inversion is of one OP.
summed_up as (
    select
        inversion_id,
        any_value(op_id) as op_id,
        max_by(said.instrument_program_id, seq) as instrument_program_id,
        min_by(case when to_state = 'Working' then coalesce(said.claimed_by, actor) end, seq) as claimed_by,
        min(case when to_state = 'Working' then occurred_at end) as claimed_at,
        max(case when to_state = 'Inverted' then occurred_at end) as inverted_at,
        max(case when to_state = 'Published' then occurred_at end) as published_at,
        max_by(to_state, seq) as last_state,
        max_by(said.dataset_ids, seq) as dataset_ids,
        max_by(said.spectral_lines, seq) as spectral_lines,
        max_by(said['commit'], seq) as commit_hash,
        max_by(said.bucket, seq) as bucket,
        max_by(said.asdf_object_key, seq) as asdf_object_key
    from read
    group by inversion_id
),

steps as (
    select
        * replace (
            try(from_json(dataset_ids, '["VARCHAR"]')) as dataset_ids,
            try(from_json(spectral_lines, '["VARCHAR"]')) as spectral_lines
        )
    from summed_up
),

{% if is_incremental() %}
    -- What is new comes after what was kept.
    kept as (
        select * from {{ this }}
        where inversion_id in (select steps.inversion_id from steps)
    ),

    known as (
        select
            steps.* replace (
                coalesce(steps.instrument_program_id, kept.instrument_program_id) as instrument_program_id,
                coalesce(kept.claimed_by, steps.claimed_by) as claimed_by,
                least(kept.claimed_at, steps.claimed_at) as claimed_at,
                greatest(kept.inverted_at, steps.inverted_at) as inverted_at,
                greatest(kept.published_at, steps.published_at) as published_at,
                coalesce(steps.dataset_ids, kept.dataset_ids) as dataset_ids,
                coalesce(steps.spectral_lines, kept.spectral_lines) as spectral_lines,
                coalesce(steps.commit_hash, kept.commit_hash) as commit_hash,
                coalesce(steps.bucket, kept.bucket) as bucket,
                coalesce(steps.asdf_object_key, kept.asdf_object_key) as asdf_object_key
            )
        from steps
        left join kept on steps.inversion_id = kept.inversion_id
    ),
{% else %}
    known as (
        select * from steps
    ),
{% endif %}

final as (
    select
        * replace (
            coalesce(dataset_ids, []) as dataset_ids,
            coalesce(spectral_lines, []) as spectral_lines
        )
    from known
)

select * from final
