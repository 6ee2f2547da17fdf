with current_datasets as (
    select * from {{ ref('int_datasets_current') }}
),

final as (
    select
        dataset_id,
        product_id,
        instrument,
        instrument_program_id,
        proposal_id,
        experiment_id,
        start_time,
        end_time,
        create_date,
        frame_count,
        scanned_at,
        content_hash
    from current_datasets
    where op_id is null
)

select * from final
