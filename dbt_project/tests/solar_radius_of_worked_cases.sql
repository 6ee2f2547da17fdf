{{ config(tags=['verdicts']) }}

with cases as (
    select
        timestamp '2024-01-03 12:00:00' as moment,
        976.396 as expected_arcsec
    union all
    select
        timestamp '2023-07-04 00:00:00' as moment,
        944.321 as expected_arcsec
    union all
    select
        timestamp '2023-10-03 23:59:59' as moment,
        959.884 as expected_arcsec
),

computed as (
    select
        moment,
        expected_arcsec,
        {{ solar_radius_arcsec('moment') }} as radius_arcsec
    from cases
)

select *
from computed
where not abs(radius_arcsec - expected_arcsec) < 0.0006
