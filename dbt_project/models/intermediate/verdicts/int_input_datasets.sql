with datasets as (
    select * from {{ ref('int_op_datasets') }}
),

final as (
    select
        op_id,
        dataset_id,
        product_id,
        coalesce(spectral_lines[1], round(wavelength_min_nm, 1) || ' nm', 'unknown') as arm,
        instrument,
        instrument_program_id,
        proposal_id,
        experiment_id,
        wavelength_min_nm,
        wavelength_max_nm,
        frame_count,
        stokes,
        spectral_lines,
        lines_estimated,
        asdf_object_key,
        bucket,
        content_hash
    from datasets
    where is_supported
)

select * from final
