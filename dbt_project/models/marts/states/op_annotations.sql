with annotations as (
    select * from {{ ref('stg_ledger__annotations') }}
),

final as (
    select
        annotation_id,
        op_id,
        kind,
        actor,
        recorded_at,
        case kind
            when 'priority' then concat_ws(': ', 'priority ' || (details ->> 'level'), details ->> 'reason')
            when 'assigned' then 'assigned to ' || coalesce(details ->> 'to', 'nobody')
            when 'note' then details ->> 'text'
            when 'publish_waits' then details ->> 'reason'
            when 'publish_approved' then 'publishing approved'
            when 'inputs_changed' then 'the inputs differ from those that were claimed'
        end as remark,
        details::varchar as details
    from annotations
)

select * from final
