{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='append_new_columns',
        pre_hook="{{ follow(ref('int_op_last_transition')) }}",
    )
}}

{%- set said = {
    'statistics': [{
        'file': 'VARCHAR',
        'quantity': 'VARCHAR',
        'unit': 'VARCHAR',
        'finite_share': 'DOUBLE',
        'minimum': 'DOUBLE',
        'mean': 'DOUBLE',
        'maximum': 'DOUBLE',
        'deviation': 'DOUBLE',
        'impossible_share': 'DOUBLE',
        'unusual_share': 'DOUBLE',
    }],
} -%}

with transitions as (
    select * from {{ ref('stg_ledger__transitions') }}
    {% if is_incremental() %}
        where transition_id > getvariable('inversion_quality_through')
    {% endif %}
),

read as (
    select
        inversion_id,
        op_id,
        seq,
        occurred_at as verified_at,
        json_transform(details, '{{ said | tojson }}').statistics as measurements
    from transitions
    where
        to_state = 'Inverted'
        and inversion_id is not null
        {% if is_incremental() %}
            and inversion_id not in (select known.inversion_id from {{ this }} as known)
        {% endif %}
),

-- One that comes back from Error says the same again.
verified as (
    select * from read
    where measurements is not null
    qualify row_number() over (partition by inversion_id order by seq) = 1
),

measured as (
    select
        inversion_id,
        op_id,
        verified_at,
        unnest(measurements) as said
    from verified
),

final as (
    select
        inversion_id,
        op_id,
        said.file as product_file,
        said.quantity,
        nullif(said.unit, '') as unit,
        said.finite_share,
        said.minimum,
        said.mean,
        said.maximum,
        said.deviation as standard_deviation,
        said.impossible_share,
        said.unusual_share,
        verified_at
    from measured
)

select * from final
