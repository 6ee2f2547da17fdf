with criteria as (
    select * from {{ ref('op_criteria') }}
),

datasets as (
    select * from {{ ref('int_op_datasets') }}
),

line_coverage as (
    select * from {{ ref('int_op_line_coverage') }}
),

rule_version as (
    select * from {{ ref('int_rule_version') }}
),

verdicts as (
    select
        op_id,
        instrument,
        bool_and(passed) as is_invertible,
        coalesce(list(criterion order by position) filter (where not passed), []) as failed_criteria
    from criteria
    group by op_id, instrument
),

inputs as (
    select
        op_id,
        instrument,
        is_supported,
        count(*) as dataset_count,
        -- A package prepared from these datasets is out of date as soon as an id or a frame count differs.
        sha256(
            string_agg(dataset_id || ':' || coalesce(frame_count::varchar, ''), ',' order by dataset_id)
        ) as inputs_hash,
        bool_or(lines_estimated) as has_estimated_line
    from datasets
    group by op_id, instrument, is_supported
),

warnings_found as (
    select
        op_id,
        instrument,
        'missing_' || line as warning
    from line_coverage
    where not is_observed and not is_required
    union all
    select
        op_id,
        instrument,
        'narrow_window_' || line as warning
    from line_coverage
    where is_window_narrow
    union all
    select
        op_id,
        instrument,
        'estimated_line' as warning
    from inputs
    where is_supported and has_estimated_line
),

warnings as (
    select
        op_id,
        instrument,
        list(warning order by warning) as warnings
    from warnings_found
    group by op_id, instrument
),

final as (
    select
        verdicts.op_id,
        verdicts.instrument,
        inputs.is_supported,
        verdicts.is_invertible,
        verdicts.failed_criteria,
        coalesce(warnings.warnings, []) as warnings,
        inputs.dataset_count,
        inputs.inputs_hash,
        rule_version.rule_version
    from verdicts
    inner join inputs
        on verdicts.op_id = inputs.op_id and verdicts.instrument = inputs.instrument
    left join warnings
        on verdicts.op_id = warnings.op_id and verdicts.instrument = warnings.instrument
    cross join rule_version
)

select * from final
