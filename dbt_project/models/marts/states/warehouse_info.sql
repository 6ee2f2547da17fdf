with scan_moment as (
    select * from {{ ref('int_scan_moment') }}
),

rule_version as (
    select * from {{ ref('int_rule_version') }}
),

counts as (
    select
        (select count(*) from {{ ref('rejected_records') }}) as rejected_record_count,
        (select count(*) from {{ ref('orphan_datasets') }}) as orphan_dataset_count
),

final as (
    select
        {{ built_at() }} as built_at,
        scan_moment.last_scan_at,
        rule_version.rule_version,
        '{{ env_var('L2_STORE_NAME', 'local store') | replace("'", "''") }}' as store,
        {{ env_var('L2_IS_DEMO', 'false') | lower in ('true', '1', 'yes') }} as is_demo,
        counts.rejected_record_count,
        counts.orphan_dataset_count
    from scan_moment
    cross join rule_version
    cross join counts
)

select * from final
