with rules as (
    select * from {{ ref('qualification_rules') }}
),

criteria as (
    select * from {{ ref('criteria') }}
),

supported_instruments as (
    select * from {{ ref('supported_instruments') }}
),

wanted_lines as (
    select * from {{ ref('wanted_lines') }}
),

-- What the models read of the seeds; the wording of a criterion decides nothing.
parts as (
    select
        'rules' as part,
        to_json(rules)::varchar as content_text
    from rules
    union all
    select
        'criteria' as part,
        position || ' ' || criterion as content_text
    from criteria
    union all
    select
        'instruments' as part,
        to_json(supported_instruments)::varchar as content_text
    from supported_instruments
    union all
    select
        'lines' as part,
        to_json(wanted_lines)::varchar as content_text
    from wanted_lines
    union all
    select
        'code' as part,
        '{{ rule_code(
            models=["op_verdicts"],
            snippets=[
                bounding_box_number("box", 1),
                decimal_text("number", "1"),
                finite("number"),
                known_status("status"),
                not_blank("text"),
                product_of(),
                solar_radius_arcsec("moment"),
            ]
        ) }}' as content_text
),

fingerprints as (
    select md5(string_agg(part || ' ' || content_text, chr(10) order by part, content_text)) as fingerprint
    from parts
),

final as (
    select
        rules.rule_version as rule_name,
        fingerprints.fingerprint,
        rules.rule_version || '.' || left(fingerprints.fingerprint, 8) as rule_version
    from rules
    cross join fingerprints
)

select * from final
