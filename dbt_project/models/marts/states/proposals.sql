with ops as (
    select * from {{ ref('int_ops') }}
),

states as (
    select * from {{ ref('op_latest_state') }}
),

final as (
    select
        ops.proposal_id,
        count(*) as op_count,
        count(*) filter (where states.state is null) as undecided_count,
        count(*) filter (where states.state = 'Discovered') as discovered_count,
        count(*) filter (where states.state = 'Invertible') as invertible_count,
        count(*) filter (where states.state = 'NotInvertible') as not_invertible_count,
        count(*) filter (where states.state = 'Preprocessed') as preprocessed_count,
        count(*) filter (where states.state = 'Working') as working_count,
        count(*) filter (where states.state = 'Inverted') as inverted_count,
        count(*) filter (where states.state = 'Published') as published_count,
        count(*) filter (where states.state = 'Error') as error_count,
        min(ops.first_dataset_at) as first_dataset_at,
        max(states.last_published_at) as last_published_at
    from ops
    left join states on ops.op_id = states.op_id
    group by ops.proposal_id
)

select * from final
