with current_datasets as (
    select * from {{ ref('int_datasets_current') }}
),

lines as (
    select * from {{ ref('int_dataset_lines') }}
),

final as (
    select
        current_datasets.dataset_id,
        current_datasets.product_id,
        current_datasets.op_id,
        current_datasets.instrument_program_id,
        current_datasets.proposal_id,
        current_datasets.experiment_id,
        current_datasets.instrument,
        current_datasets.start_time,
        current_datasets.end_time,
        current_datasets.create_date,
        current_datasets.wavelength_min_nm,
        current_datasets.wavelength_max_nm,
        current_datasets.frame_count,
        current_datasets.exposure_time_ms,
        current_datasets.size_gb,
        current_datasets.stokes,
        lines.spectral_lines,
        lines.lines_estimated,
        current_datasets.bounding_box,
        {{ bounding_box_number('current_datasets.bounding_box', 1) }} as box_x1_arcsec,
        {{ bounding_box_number('current_datasets.bounding_box', 2) }} as box_y1_arcsec,
        {{ bounding_box_number('current_datasets.bounding_box', 3) }} as box_x2_arcsec,
        {{ bounding_box_number('current_datasets.bounding_box', 4) }} as box_y2_arcsec,
        {{ solar_radius_arcsec('current_datasets.start_time') }} as solar_radius_arcsec,
        current_datasets.health_good_count,
        current_datasets.gos_open_count,
        current_datasets.ao_locked_count,
        {{ finite('current_datasets.fried_parameter_min_m') }} as fried_parameter_min_m,
        {{ finite('current_datasets.fried_parameter_p25_m') }} as fried_parameter_p25_m,
        {{ finite('current_datasets.fried_parameter_median_m') }} as fried_parameter_median_m,
        {{ finite('current_datasets.fried_parameter_p75_m') }} as fried_parameter_p75_m,
        {{ finite('current_datasets.fried_parameter_max_m') }} as fried_parameter_max_m,
        {{ finite('current_datasets.light_level_median') }} as light_level_median,
        current_datasets.is_embargoed,
        current_datasets.embargo_end_date,
        current_datasets.status,
        current_datasets.bucket,
        current_datasets.asdf_object_key,
        current_datasets.browse_movie_url,
        current_datasets.missing_since,
        current_datasets.scanned_at,
        current_datasets.content_hash
    from current_datasets
    inner join lines on current_datasets.dataset_id = lines.dataset_id
)

select * from final
