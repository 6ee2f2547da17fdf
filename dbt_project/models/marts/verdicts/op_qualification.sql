with criteria as (
    select * from {{ ref('op_criteria') }}
),

datasets as (
    select * from {{ ref('int_op_datasets') }}
),

line_coverage as (
    select * from {{ ref('int_op_line_coverage') }}
),

wanted_lines as (
    select * from {{ ref('wanted_lines') }}
),

rule_version as (
    select * from {{ ref('int_rule_version') }}
),

verdicts as (
    select
        op_id,
        instrument,
        bool_and(passed) as is_invertible,
        -- One sort of all lists by position, instead of one for each group.
        [
            failed.criterion
            for failed in coalesce(
                list_sort(list({ 'position': position, 'criterion': criterion }) filter (where not passed)), []
            )
        ] as failed_criteria
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
            array_to_string(
                [
                    dataset.dataset_id || ':' || coalesce(dataset.frame_count::varchar, '')
                    for dataset in list_sort(list({ 'dataset_id': dataset_id, 'frame_count': frame_count }))
                ],
                ','
            )
        ) as inputs_hash,
        bool_or(lines_estimated) as has_estimated_line,
        string_agg(spectral_lines[1] || ' in ' || dataset_id, ', ' order by dataset_id) filter (where lines_estimated)
            as estimated_lines
    from datasets
    group by op_id, instrument, is_supported
),

warnings_found as (
    select
        line_coverage.op_id,
        line_coverage.instrument,
        'missing_' || line_coverage.line as warning,
        wanted_lines.estimated_name || ' is missing' as explanation
    from line_coverage
    inner join wanted_lines on line_coverage.line = wanted_lines.line
    where not line_coverage.is_observed and not line_coverage.is_required
    union all
    select
        line_coverage.op_id,
        line_coverage.instrument,
        'narrow_window_' || line_coverage.line as warning,
        'the window is narrow: a range of wavelengths ends less than ' || wanted_lines.window_margin_nm
        || ' nm from ' || wanted_lines.window_centre_nm || ' nm' as explanation
    from line_coverage
    inner join wanted_lines on line_coverage.line = wanted_lines.line
    where line_coverage.is_window_narrow
    union all
    select
        op_id,
        instrument,
        'estimated_line' as warning,
        'estimated from the wavelengths, not recorded: ' || estimated_lines as explanation
    from inputs
    where is_supported and has_estimated_line
),

warnings as (
    select
        op_id,
        instrument,
        list(warning order by warning) as warnings,
        list(explanation order by warning) as warning_explanations
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
        coalesce(warnings.warning_explanations, []) as warning_explanations,
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
