-- A view: it adds little to what is a table already, and those that read it want few of its columns.
{{ config(materialized='view') }}

with datasets as (
    select * from {{ ref('int_datasets_current') }}
),

lines as (
    select * from {{ ref('int_dataset_lines') }}
),

supported_instruments as (
    select * from {{ ref('supported_instruments') }}
),

final as (
    select
        datasets.* replace (
            lines.spectral_lines as spectral_lines,
            coalesce(datasets.instrument, 'unknown') as instrument
        ),
        lines.lines_estimated,
        lines.are_lines_known,
        supported_instruments.instrument is not null as is_supported
    from datasets
    inner join lines on datasets.dataset_id = lines.dataset_id
    left join supported_instruments on datasets.instrument = supported_instruments.instrument
    where datasets.op_id is not null
)

select * from final
