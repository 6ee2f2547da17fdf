with datasets as (
    select * from {{ ref('int_op_datasets') }}
),

readiness as (
    select * from {{ ref('int_op_readiness') }}
),

qualification as (
    select * from {{ ref('op_qualification') }}
),

experiments as (
    select * from {{ ref('stg_store__experiments') }}
),

rules as (
    select * from {{ ref('qualification_rules') }}
),

newest_experiments as (
    select
        experiment_id,
        experiment_description
    from experiments
    qualify row_number() over (
        partition by experiment_id order by scanned_at desc, content_hash desc
    ) = 1
),

programs as (
    select
        op_id,
        min(proposal_id) as proposal_id,
        min(experiment_id) as experiment_id,
        list(distinct instrument order by instrument) as instruments,
        count(*) as dataset_count,
        count(*) filter (where is_supported) as supported_dataset_count,
        min(start_time) as start_time,
        max(end_time) as end_time,
        min(experiment_description) as experiment_description
    from datasets
    group by op_id
),

-- What an inversion would use: the datasets of the supported instrument, or all when there is none.
inputs as (
    select *
    from datasets
    qualify is_supported or not bool_or(is_supported) over (partition by op_id)
),

conditions as (
    select
        op_id,
        coalesce(bool_or(is_embargoed), false) as is_embargoed,
        max(embargo_end_date) filter (where is_embargoed) as embargoed_until,
        bool_or(is_embargoed and embargo_end_date is null) as is_embargo_open_ended,
        max(embargo_end_date) as latest_end_date,
        median({{ finite('fried_parameter_median_m') }}) as fried_parameter_median_m,
        median({{ finite('light_level_median') }}) as light_level_median,
        min(case when frame_count > 0 then ao_locked_count / frame_count end) as ao_locked_fraction
    from inputs
    group by op_id
),

input_lines as (
    select distinct
        op_id,
        unnest(spectral_lines) as line_name
    from inputs
),

lines as (
    select
        op_id,
        list(line_name order by line_name) as spectral_lines
    from input_lines
    group by op_id
),

verdicts as (
    select
        op_id,
        bool_or(is_supported and is_invertible) as is_invertible
    from qualification
    group by op_id
),

final as (
    select
        programs.op_id,
        programs.proposal_id,
        programs.experiment_id,
        programs.instruments,
        programs.dataset_count,
        programs.supported_dataset_count,
        programs.start_time,
        programs.end_time,
        readiness.last_dataset_at,
        readiness.is_complete,
        readiness.completeness,
        readiness.planned_recipe_count,
        readiness.complete_recipe_instance_count,
        readiness.quiet_at,
        case
            when not readiness.is_complete
                then
                    'waits for all its datasets: '
                    || coalesce(
                        readiness.complete_recipe_instance_count || ' of ' || readiness.planned_recipe_count
                        || ' planned recipes are complete',
                        'the store plans no recipes for it'
                    )
                    || coalesce(
                        '; if no new dataset arrives it is complete at '
                        || strftime(readiness.quiet_at, '%Y-%m-%d %H:%M') || ' UTC',
                        ''
                    )
        end as waits_for,
        verdicts.is_invertible,
        conditions.is_embargoed,
        -- An embargo without an end is not shortened by the end date of another dataset.
        case
            when not conditions.is_embargoed then conditions.latest_end_date
            when not conditions.is_embargo_open_ended then conditions.embargoed_until
        end as embargo_end_date,
        coalesce(lines.spectral_lines, []) as spectral_lines,
        conditions.fried_parameter_median_m,
        case
            when conditions.fried_parameter_median_m >= rules.good_fried_parameter_m then 'good'
            when conditions.fried_parameter_median_m >= rules.fair_fried_parameter_m then 'fair'
            when conditions.fried_parameter_median_m is not null then 'poor'
        end as seeing,
        conditions.light_level_median,
        conditions.ao_locked_fraction,
        replace(
            coalesce(newest_experiments.experiment_description, programs.experiment_description), '\n', chr(10)
        ) as experiment_description
    from programs
    inner join readiness on programs.op_id = readiness.op_id
    inner join verdicts on programs.op_id = verdicts.op_id
    inner join conditions on programs.op_id = conditions.op_id
    left join lines on programs.op_id = lines.op_id
    left join newest_experiments on programs.experiment_id = newest_experiments.experiment_id
    cross join rules
)

select * from final
