with source as (
    select * from {{ source('bronze', 'processing_candidates') }}
),

renamed as (
    select
        observing_program_execution_id as op_id,
        proposal_id,
        experiment_id,
        planned_recipe_count::bigint as planned_recipe_count,
        total_recipe_instance_count::bigint as total_recipe_instance_count,
        complete_recipe_instance_count::bigint as complete_recipe_instance_count,
        is_locked,
        data_acquisition_completion_date::timestamp as data_acquisition_completion_date,
        create_date::timestamp as create_date,
        update_date::timestamp as update_date,
        scanned_at::timestamp as scanned_at,
        job_id,
        content_hash
    from source
)

select * from renamed
