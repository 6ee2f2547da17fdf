with known as (
    select * from {{ ref('int_datasets_known') }}
),

final as (
    select
        op_id,
        min(proposal_id) as proposal_id,
        min(experiment_id) as experiment_id,
        min(create_date) as first_dataset_at,
        count(*) as known_dataset_count
    from known
    where op_id is not null
    group by op_id
)

select * from final
