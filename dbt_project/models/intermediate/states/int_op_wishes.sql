with annotations as (
    select * from {{ ref('stg_ledger__annotations') }}
),

latest as (
    select *
    from annotations
    where kind in ('priority', 'assigned')
    qualify row_number() over (partition by op_id, kind order by annotation_id desc) = 1
),

-- An annotation can never be taken back: one with a strange level is read as well as it can be, and stops no build.
final as (
    select
        op_id,
        greatest(-9, least(9, coalesce(
            max(try_cast(details ->> 'level' as integer)) filter (where kind = 'priority'), 0
        ))) as priority,
        max(details ->> 'reason') filter (where kind = 'priority') as priority_reason,
        max(actor) filter (where kind = 'priority') as prioritized_by,
        max(details ->> 'to') filter (where kind = 'assigned') as assigned_to,
        max(actor) filter (where kind = 'assigned') as assigned_by
    from latest
    group by op_id
)

select * from final
