with rejected as (
    select * from {{ ref('stg_store__rejected') }}
),

versions as (
    select * from {{ ref('stg_store__datasets') }}
),

-- Two windows of one scan can bring the same bad record.
first_refusals as (
    select *
    from rejected
    qualify row_number() over (
        partition by table_name, content_hash order by scanned_at asc, job_id asc
    ) = 1
),

accepted as (
    select
        dataset_id,
        max(scanned_at) as last_accepted_at
    from versions
    group by dataset_id
),

final as (
    select
        first_refusals.scanned_at as rejected_at,
        first_refusals.table_name,
        first_refusals.record_id,
        first_refusals.reason,
        accepted.last_accepted_at,
        first_refusals.raw_json,
        first_refusals.job_id,
        first_refusals.content_hash
    from first_refusals
    left join accepted
        on
            first_refusals.table_name = 'datasets'
            and first_refusals.record_id = accepted.dataset_id
)

select * from final
