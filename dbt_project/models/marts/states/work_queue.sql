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

verdicts as (
    select * from {{ ref('op_verdicts') }}
),

wishes as (
    select * from {{ ref('int_op_wishes') }}
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
        coalesce(
            case state_rules.named_by
                when 'claim' then coalesce(states.details::json ->> 'claimed_by', states.actor)
                when 'assignment' then wishes.assigned_to
            end,
            state_rules.responsible
        ) as responsible,
        wishes.assigned_to,
        coalesce(wishes.priority, 0) as priority,
        case
            when states.state = 'Error'
                then concat_ws(
                    ': ',
                    'failed in ' || coalesce(states.details::json ->> 'step', 'an unknown step'),
                    states.details::json ->> 'message'
                )
            when states.state = 'Working' and states.inputs_changed
                then 'its inputs have changed since it was claimed'
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
        len(verdicts.warnings) as warning_count,
        date_diff('microsecond', programs.last_dataset_at, {{ built_at() }}) / 86400e6 as age_days
    from states
    inner join state_rules on states.state = state_rules.state
    left join programs on states.op_id = programs.op_id
    left join wanted_line_counts on states.op_id = wanted_line_counts.op_id
    left join verdicts on states.op_id = verdicts.op_id
    left join wishes on states.op_id = wishes.op_id
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
        max(weight) filter (where part = 'warnings') as warnings_weight,
        max(full_at) filter (where part = 'warnings') as warnings_full_at,
        max(weight) filter (where part = 'age') as age_weight,
        max(full_at) filter (where part = 'age') as age_full_at,
        max(weight) filter (where part = 'priority') as priority_weight
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
        coalesce(greatest(0.0, 1 - waiting.warning_count / parts.warnings_full_at), 0.0) as warnings_score,
        least(1.0, greatest(0.0, coalesce(waiting.age_days, 0) / parts.age_full_at)) as age_score,
        parts.*
    from waiting
    cross join parts
),

judged as (
    select
        *,
        round(
            readiness_score * readiness_weight
            + fried_parameter_score * fried_parameter_weight
            + adaptive_optics_score * adaptive_optics_weight
            + lines_score * lines_weight
            + warnings_score * warnings_weight
            + age_score * age_weight,
            6
        ) as merit_score
    from scored
),

ranked as (
    select
        *,
        round(merit_score + priority * priority_weight, 6) as priority_score
    from judged
),

final as (
    select
        -- Where a level makes up for merit exactly, the person's word counts.
        row_number() over (order by priority_score desc, priority desc, op_id asc) as rank,
        op_id,
        proposal_id,
        state,
        inversion_id,
        responsible,
        assigned_to,
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
        is_held_by_embargo,
        case when is_held_by_embargo then embargo_end_date end as embargo_end_date,
        inputs_changed,
        priority_score,
        priority,
        merit_score,
        readiness_score,
        fried_parameter_score,
        adaptive_optics_score,
        lines_score,
        warnings_score,
        age_score,
        fried_parameter_median_m,
        ao_locked_fraction,
        wanted_line_count,
        warning_count,
        age_days
    from ranked
)

select * from final
