with datasets as (
    select * from {{ ref('int_datasets_current') }}
),

wanted_lines as (
    select * from {{ ref('wanted_lines') }}
),

recorded as (
    select
        dataset_id,
        {{ finite('wavelength_min_nm') }} as wavelength_min_nm,
        {{ finite('wavelength_max_nm') }} as wavelength_max_nm,
        coalesce([line for line in spectral_lines if trim(line) <> ''], []) as recorded_lines
    from datasets
),

estimates as (
    select
        recorded.dataset_id,
        min_by(wanted_lines.estimated_name, wanted_lines.priority) as estimated_line
    from recorded
    inner join wanted_lines
        on
            recorded.wavelength_min_nm - wanted_lines.estimate_margin_nm <= wanted_lines.wavelength_nm
            and recorded.wavelength_max_nm + wanted_lines.estimate_margin_nm >= wanted_lines.wavelength_nm
    where len(recorded.recorded_lines) = 0
    group by recorded.dataset_id
),

final as (
    select
        recorded.dataset_id,
        case
            when estimates.estimated_line is null then recorded.recorded_lines
            else [estimates.estimated_line]
        end as spectral_lines,
        estimates.estimated_line is not null as lines_estimated,
        len(recorded.recorded_lines) > 0
        or (recorded.wavelength_min_nm is not null and recorded.wavelength_max_nm is not null) as are_lines_known
    from recorded
    left join estimates on recorded.dataset_id = estimates.dataset_id
)

select * from final
