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

supported_instruments as (
    select string_agg(instrument, ' or ' order by instrument) as instrument_list
    from {{ ref('supported_instruments') }}
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
        instruments.op_id,
        instruments.instrument,
        'instrument' as criterion,
        case
            when instruments.is_supported then 'pass'
            when instruments.instrument = 'unknown' then 'not_recorded'
            else 'fail'
        end as outcome,
        instruments.instrument as measured_text,
        supported_instruments.instrument_list as threshold_text
    from instruments
    cross join supported_instruments
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

compared as (
    select
        judged.* replace (
            case
                when judged.criterion = 'stokes' then rules.required_stokes
                else coalesce(judged.threshold_text, {{ decimal_text('judged.threshold', 'criteria.decimals') }})
            end as threshold_text
        ),
        criteria.position,
        criteria.unit,
        criteria.decimals,
        criteria.subject,
        criteria.measured_words,
        criteria.needed_words,
        (judged.measured_value - judged.threshold) * nullif(criteria.better, 0) as margin,
        coalesce(failing_datasets.failing_dataset_count, 0)::bigint as failing_dataset_count,
        {{ decimal_text('judged.measured_value', 'criteria.decimals') }} as value_text
    from judged
    inner join criteria on judged.criterion = criteria.criterion
    cross join rules
    left join failing_datasets
        on
            judged.op_id = failing_datasets.op_id
            and judged.instrument = failing_datasets.instrument
            and judged.criterion = failing_datasets.criterion
),

-- The words are the seed's: what was measured, and what is needed. Garbage has no value to put into them.
worded as (
    select
        *,
        case
            when measured_value is null and contains(measured_words, '{value}')
                then subject || ' is ' || coalesce(measured_text, 'unusable')
            else replace(
                replace(measured_words, '{value}', coalesce(value_text, '')),
                '{text}',
                coalesce(nullif(measured_text, ''), 'none')
            )
        end as measured_in_words,
        replace(needed_words, '{threshold}', coalesce(threshold_text, '')) as needed_in_words,
        coalesce(' in ' || worst_dataset_id, '')
        || case when failing_dataset_count > 1 then ' and ' || (failing_dataset_count - 1) || ' more' else '' end
            as in_which
    from compared
),

final as (
    select
        op_id,
        instrument,
        criterion,
        position,
        outcome = 'pass' as passed,
        outcome,
        measured_value,
        measured_text,
        threshold,
        threshold_text,
        unit,
        margin,
        worst_dataset_id,
        failing_dataset_count,
        case
            when outcome = 'fail' then measured_in_words || in_which || '; needs ' || needed_in_words
            when outcome = 'not_recorded'
                then subject || ' is not recorded' || in_which || '; needs ' || needed_in_words
            when margin is not null
                then
                    measured_in_words || coalesce(' at worst, in ' || worst_dataset_id, '') || '; needs '
                    || needed_in_words || ', ' || {{ decimal_text('margin', 'decimals') }} || ' to spare'
            when measured_value is not null then measured_in_words || coalesce(' at worst, in ' || worst_dataset_id, '')
            else measured_in_words || case when worst_dataset_id is null then '' else ' in every dataset' end
        end as explanation
    from worded
)

select * from final
