-- A view over bronze, of which `int_datasets_current` writes what counts.
{{ config(materialized='view') }}

{%- set versions = ref('stg_store__datasets') %}

-- No CTE: DuckDB would keep one that is read twice with all its columns.
with sightings as (
    select * from {{ ref('stg_store__missing') }}
),

newest as (
    select
        dataset_id,
        scanned_at,
        content_hash
    from {{ versions }}
    qualify row_number() over (
        partition by dataset_id order by scanned_at desc, content_hash desc
    ) = 1
),

-- The window sorts three columns; the others are read of the winners.
newest_records as (
    select versions.*
    from {{ versions }} as versions
    semi join newest
        on
            versions.dataset_id = newest.dataset_id
            and versions.scanned_at is not distinct from newest.scanned_at
            and versions.content_hash is not distinct from newest.content_hash
),

newest_versions as (
    select * exclude (record)
    from newest_records
),

newest_sightings as (
    select
        record_id as dataset_id,
        missing_since
    from sightings
    where table_name = 'datasets'
    qualify row_number() over (
        partition by record_id order by scanned_at desc, missing_since desc nulls last
    ) = 1
),

final as (
    select
        newest_versions.* replace (
            {{ not_blank('newest_versions.product_id') }} as product_id,
            {{ not_blank('newest_versions.op_id') }} as op_id,
            {{ not_blank('newest_versions.instrument_program_id') }} as instrument_program_id,
            {{ not_blank('newest_versions.instrument') }} as instrument,
            {{ known_status('newest_versions.status') }} as status
        ),
        newest_sightings.missing_since
    from newest_versions
    left join newest_sightings on newest_versions.dataset_id = newest_sightings.dataset_id
)

select * from final
