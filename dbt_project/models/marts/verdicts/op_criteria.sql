with datasets as (
    select * from {{ ref('int_op_datasets') }}
),

dataset_criteria as (
    select * from {{ ref('int_dataset_criteria') }}
),

line_coverage as (
    select * from {{ ref('int_op_line_coverage') }}
),

criteria as (
    select * from {{ ref('criteria') }}
),

rules as (
    select * from {{ ref('qualification_rules') }}
),

instruments as (
    select
        op_id,
        instrument,
        is_supported,
        count(distinct instrument_program_id) as program_count,
        count(*) filter (where instrument_program_id is null) as unknown_program_count,
        string_agg(distinct instrument_program_id, ', ' order by instrument_program_id) as programs
    from datasets
    group by op_id, instrument, is_supported
),

instrument_criterion as (
    select
        op_id,
        instrument,
        'instrument' as criterion,
        case
            when is_supported then 'pass'
            when instrument = 'unknown' then 'not_recorded'
            else 'fail'
        end as outcome,
        instrument as measured_text
    from instruments
),

program_criterion as (
    select
        instruments.op_id,
        instruments.instrument,
        'one_program' as criterion,
        case
            when instruments.program_count > rules.max_instrument_programs then 'fail'
            when instruments.unknown_program_count > 0 then 'not_recorded'
            else 'pass'
        end as outcome,
        instruments.program_count::double as measured_value,
        instruments.programs as measured_text,
        rules.max_instrument_programs::double as threshold
    from instruments
    cross join rules
    where instruments.is_supported
),

line_criterion as (
    select
        op_id,
        instrument,
        line as criterion,
        case
            when is_observed then 'pass'
            when are_lines_known then 'fail'
            else 'not_recorded'
        end as outcome,
        len(line_names)::double as measured_value,
        array_to_string(all_line_names, ', ') as measured_text,
        1::double as threshold
    from line_coverage
    where is_required
),

-- The worst dataset speaks for all: a failed one before one that was not recorded before a passed one, then the one
-- with the smallest reserve (garbage, which has none, first), then by id.
worst_datasets as (
    select
        op_id,
        instrument,
        criterion,
        outcome,
        measured_value,
        measured_text,
        threshold,
        dataset_id as worst_dataset_id
    from dataset_criteria
    qualify row_number() over (
        partition by op_id, instrument, criterion
        order by
            case outcome when 'fail' then 1 when 'not_recorded' then 2 else 3 end asc,
            reserve asc nulls first,
            dataset_id asc
    ) = 1
),

failing_datasets as (
    select
        op_id,
        instrument,
        criterion,
        count(*) as failing_dataset_count
    from dataset_criteria
    where not passed
    group by op_id, instrument, criterion
),

judged as (
    select * from instrument_criterion
    union all by name
    select * from program_criterion
    union all by name
    select * from line_criterion
    union all by name
    select * from worst_datasets
),

final as (
    select
        judged.op_id,
        judged.instrument,
        judged.criterion,
        criteria.position,
        judged.outcome = 'pass' as passed,
        judged.outcome,
        judged.measured_value,
        judged.measured_text,
        judged.threshold,
        criteria.unit,
        judged.worst_dataset_id,
        coalesce(failing_datasets.failing_dataset_count, 0)::bigint as failing_dataset_count
    from judged
    inner join criteria on judged.criterion = criteria.criterion
    left join failing_datasets
        on
            judged.op_id = failing_datasets.op_id
            and judged.instrument = failing_datasets.instrument
            and judged.criterion = failing_datasets.criterion
)

select * from final
