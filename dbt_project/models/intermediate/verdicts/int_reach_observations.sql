-- A view: a day of all sensors is a million rows, and a pass that has nothing to do with them must not write them anew.
{{ config(materialized='view') }}

with observations as (
    select * from {{ ref('stg_reach__observations') }}
),

-- A day that is downloaded again, while its records can still change, is a second file beside the first.
final as (
    select *
    from observations
    qualify row_number() over (
        partition by source, data_mode, descriptor, sensor_id, duplicate_key, observed_at
        order by created_at desc nulls last, observation_id desc
    ) = 1
)

select * from final
