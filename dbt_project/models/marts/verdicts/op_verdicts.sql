with programs as (
    select * from {{ ref('observing_programs') }}
),

qualification as (
    select * from {{ ref('op_qualification') }}
),

criteria as (
    select * from {{ ref('op_criteria') }}
),

inputs as (
    select * from {{ ref('int_input_datasets') }}
),

-- One instrument speaks for the OP: a supported one before the others, among them one that qualifies.
speaking as (
    select *
    from qualification
    qualify row_number() over (
        partition by op_id order by is_supported desc, is_invertible desc, instrument asc
    ) = 1
),

-- One sort of all lists by position, instead of one for each group.
measurements as (
    select
        criteria.op_id,
        criteria.instrument,
        list_sort(list({
            'position': criteria.position,
            'told': {
                'criterion': criteria.criterion,
                'outcome': criteria.outcome,
                'measured_value': criteria.measured_value,
                'measured_text': criteria.measured_text,
                'threshold': criteria.threshold,
                'unit': criteria.unit,
                'worst_dataset_id': criteria.worst_dataset_id,
                'failing_dataset_count': criteria.failing_dataset_count
            }
        })) as measurements
    from criteria
    semi join speaking on criteria.op_id = speaking.op_id and criteria.instrument = speaking.instrument
    group by criteria.op_id, criteria.instrument
),

measured as (
    select
        op_id,
        instrument,
        to_json([measurement.told for measurement in measurements])::varchar as measured
    from measurements
),

packages as (
    select
        op_id,
        instrument,
        min(instrument_program_id) as instrument_program_id,
        list(dataset_id order by dataset_id) as dataset_ids,
        list(distinct bucket order by bucket) filter (where bucket is not null) as buckets
    from inputs
    group by op_id, instrument
),

input_lines as (
    select distinct
        op_id,
        instrument,
        unnest(spectral_lines) as line_name
    from inputs
),

lines as (
    select
        op_id,
        instrument,
        list(line_name order by line_name) as spectral_lines
    from input_lines
    group by op_id, instrument
),

final as (
    select
        programs.op_id,
        programs.proposal_id,
        speaking.instrument,
        true as has_datasets,
        programs.is_complete,
        programs.completeness,
        speaking.is_invertible,
        speaking.failed_criteria,
        speaking.warnings,
        speaking.inputs_hash,
        speaking.rule_version,
        packages.instrument_program_id,
        coalesce(packages.dataset_ids, []) as dataset_ids,
        coalesce(packages.buckets, []) as buckets,
        coalesce(lines.spectral_lines, []) as spectral_lines,
        measured.measured
    from programs
    inner join speaking on programs.op_id = speaking.op_id
    inner join measured
        on speaking.op_id = measured.op_id and speaking.instrument = measured.instrument
    left join packages
        on speaking.op_id = packages.op_id and speaking.instrument = packages.instrument
    left join lines
        on speaking.op_id = lines.op_id and speaking.instrument = lines.instrument
)

select * from final
