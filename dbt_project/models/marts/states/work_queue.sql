with states as (
    select * from {{ ref('op_latest_state') }}
),

state_rules as (
    select * from {{ ref('state_rules') }}
),

programs as (
    select * from {{ ref('observing_programs') }}
),

line_coverage as (
    select * from {{ ref('int_op_line_coverage') }}
),

priority_parts as (
    select * from {{ ref('priority_parts') }}
),

wanted_line_counts as (
    select
        op_id,
        count(distinct line) filter (where is_observed) as wanted_line_count
    from line_coverage
    group by op_id
),

waiting as (
    select
        states.op_id,
        programs.proposal_id,
        states.state,
        states.inversion_id,
        states.inputs_changed,
        states.days_in_state,
        states.since,
        state_rules.limit_days,
        case
            when states.state = 'Working'
                then coalesce(states.details::json ->> 'claimed_by', states.actor, state_rules.responsible)
            else state_rules.responsible
        end as responsible,
        case
            when states.state = 'Error'
                then concat_ws(
                    ': ',
                    'failed in ' || coalesce(states.details::json ->> 'step', 'an unknown step'),
                    states.details::json ->> 'message'
                )
            else state_rules.waiting_for
        end as reason,
        states.state = 'Inverted'
        and coalesce(programs.is_embargoed, false)
        and coalesce(programs.embargo_end_date > {{ built_at() }}, true) as is_held_by_embargo,
        programs.embargo_end_date,
        programs.completeness,
        programs.fried_parameter_median_m,
        programs.seeing,
        programs.ao_locked_fraction,
        coalesce(wanted_line_counts.wanted_line_count, 0) as wanted_line_count,
        date_diff('microsecond', programs.last_dataset_at, {{ built_at() }}) / 86400e6 as age_days
    from states
    inner join state_rules on states.state = state_rules.state
    left join programs on states.op_id = programs.op_id
    left join wanted_line_counts on states.op_id = wanted_line_counts.op_id
    where state_rules.is_queued
),

parts as (
    select
        max(weight) filter (where part = 'readiness') as readiness_weight,
        max(weight) filter (where part = 'fried_parameter') as fried_parameter_weight,
        max(weight) filter (where part = 'adaptive_optics') as adaptive_optics_weight,
        max(full_at) filter (where part = 'adaptive_optics') as adaptive_optics_full_at,
        max(weight) filter (where part = 'lines') as lines_weight,
        max(full_at) filter (where part = 'lines') as lines_full_at,
        max(weight) filter (where part = 'age') as age_weight,
        max(full_at) filter (where part = 'age') as age_full_at
    from priority_parts
),

scored as (
    select
        waiting.*,
        case waiting.completeness
            when 'recipes_complete' then 1.0
            when 'quiet' then 0.5
            else 0.0
        end::double as readiness_score,
        case waiting.seeing
            when 'good' then 1.0
            when 'fair' then 0.5
            else 0.0
        end::double as fried_parameter_score,
        least(1.0, greatest(0.0, coalesce(waiting.ao_locked_fraction, 0) / parts.adaptive_optics_full_at))
            as adaptive_optics_score,
        least(1.0, waiting.wanted_line_count / parts.lines_full_at) as lines_score,
        least(1.0, greatest(0.0, coalesce(waiting.age_days, 0) / parts.age_full_at)) as age_score,
        parts.*
    from waiting
    cross join parts
),

ranked as (
    select
        *,
        round(
            readiness_score * readiness_weight
            + fried_parameter_score * fried_parameter_weight
            + adaptive_optics_score * adaptive_optics_weight
            + lines_score * lines_weight
            + age_score * age_weight,
            6
        ) as priority_score
    from scored
),

final as (
    select
        row_number() over (order by priority_score desc, op_id asc) as rank,
        op_id,
        proposal_id,
        state,
        inversion_id,
        responsible,
        case
            when is_held_by_embargo and embargo_end_date is null then 'embargoed (no end date)'
            when is_held_by_embargo then 'embargoed until ' || strftime(embargo_end_date, '%Y-%m-%d')
            else reason
        end as reason,
        since,
        days_in_state,
        limit_days,
        -- Nobody is late while an embargo holds the OP.
        coalesce(days_in_state > limit_days, false) and not is_held_by_embargo as is_overdue,
        inputs_changed,
        priority_score,
        readiness_score,
        fried_parameter_score,
        adaptive_optics_score,
        lines_score,
        age_score,
        fried_parameter_median_m,
        ao_locked_fraction,
        wanted_line_count,
        age_days
    from ranked
)

select * from final
