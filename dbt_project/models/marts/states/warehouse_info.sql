with scan_moment as (
    select * from {{ ref('int_scan_moment') }}
),

rule_version as (
    select * from {{ ref('int_rule_version') }}
),

final as (
    select
        {{ built_at() }} as built_at,
        scan_moment.last_scan_at,
        rule_version.rule_version,
        '{{ env_var('L2_STORE_NAME', 'local store') | replace("'", "''") }}' as store,
        {{ env_var('L2_IS_DEMO', 'false') | lower in ('true', '1', 'yes') }} as is_demo
    from scan_moment
    cross join rule_version
)

select * from final
