with verdicts as (
    select * from {{ ref('op_verdicts') }}
),

-- What has not ended is what holds; so neither a sort nor a group over all transitions is needed. The history is read
-- three times and not once by a CTE, which would be kept with all columns of all rows.
latest as (
    select
        op_id,
        to_state as state,
        occurred_at as since,
        seq,
        actor,
        cause,
        inversion_id,
        inputs_hash,
        details
    from {{ ref('op_history') }}
    where ended_at is null
),

unnamed as (
    select op_id from latest
    where inputs_hash is null
),

-- Where the last transition names no inputs, the last that did: max_by passes over nulls.
named_before as (
    select
        op_id,
        max_by(inputs_hash, seq) as inputs_hash
    from {{ ref('op_history') }}
    where op_id in (select unnamed.op_id from unnamed)
    group by op_id
),

published as (
    select
        op_id,
        list(inversion_id order by seq) filter (where inversion_id is not null) as inversion_ids,
        max(occurred_at) as last_published_at
    from {{ ref('op_history') }}
    where to_state = 'Published'
    group by op_id
),

states as (
    select
        latest.* replace (coalesce(latest.inputs_hash, named_before.inputs_hash) as inputs_hash),
        coalesce(published.inversion_ids, []) as published_inversion_ids,
        published.last_published_at
    from latest
    left join named_before on latest.op_id = named_before.op_id
    left join published on latest.op_id = published.op_id
),

final as (
    select
        states.op_id,
        states.state,
        states.since,
        states.seq,
        states.actor,
        states.cause,
        states.inversion_id,
        date_diff('microsecond', states.since, {{ built_at() }}) / 86400e6 as days_in_state,
        states.inputs_hash as recorded_inputs_hash,
        -- From Working on a change of the inputs is shown and never acted on.
        states.state in ('Working', 'Inverted', 'Published')
        and states.inputs_hash is not null
        and coalesce(states.inputs_hash <> verdicts.inputs_hash, true) as inputs_changed,
        states.published_inversion_ids,
        states.last_published_at,
        states.details
    from states
    left join verdicts on states.op_id = verdicts.op_id
)

select * from final
