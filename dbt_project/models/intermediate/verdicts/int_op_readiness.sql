with datasets as (
    select * from {{ ref('int_op_datasets') }}
),

candidates as (
    select * from {{ ref('stg_store__processing_candidates') }}
),

scan_moment as (
    select * from {{ ref('int_scan_moment') }}
),

rules as (
    select * from {{ ref('qualification_rules') }}
),

newest_candidates as (
    select *
    from candidates
    qualify row_number() over (
        partition by op_id order by scanned_at desc, content_hash desc
    ) = 1
),

arrivals as (
    select
        op_id,
        bool_or(is_supported) as has_supported_instrument,
        max(create_date) filter (where is_supported) as last_supported_dataset_at,
        max(create_date) as last_dataset_at
    from datasets
    group by op_id
),

judged as (
    select
        arrivals.*,
        newest_candidates.planned_recipe_count,
        newest_candidates.complete_recipe_instance_count,
        scan_moment.last_scan_at,
        -- Nothing planned declares nothing: a plan of 0 recipes is not a finished plan.
        coalesce(
            newest_candidates.planned_recipe_count > 0
            and newest_candidates.complete_recipe_instance_count >= newest_candidates.planned_recipe_count,
            false
        ) as are_recipes_complete,
        coalesce(
            arrivals.last_supported_dataset_at <= scan_moment.last_scan_at - to_days(rules.quiet_days),
            false
        ) as is_quiet,
        arrivals.last_supported_dataset_at + to_days(rules.quiet_days) as quiet_at
    from arrivals
    left join newest_candidates on arrivals.op_id = newest_candidates.op_id
    cross join scan_moment
    cross join rules
),

final as (
    select
        *,
        not has_supported_instrument or are_recipes_complete or is_quiet as is_complete,
        case
            when not has_supported_instrument then 'no_supported_instrument'
            when are_recipes_complete then 'recipes_complete'
            when is_quiet then 'quiet'
            else 'arriving'
        end as completeness
    from judged
)

select * from final
