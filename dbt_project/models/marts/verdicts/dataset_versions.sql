{%- set versions = ref('stg_store__datasets') -%}
{#- How a version was brought is no change of the record. -#}
{%- set aside = "('dataset_id', 'number_of_version', 'scanned_at', 'job_id', 'content_hash')" -%}
{%- set field = 'columns(* exclude ' ~ aside | replace("'", '') ~ ')' -%}

-- Windows sort the three columns that tell versions apart; the others are read once they are numbered. No CTE of the
-- versions: DuckDB would keep one that is read twice with all columns.
with numbered as (
    select
        dataset_id,
        scanned_at,
        content_hash,
        row_number() over by_time as version_number,
        lead(scanned_at) over by_time as superseded_at
    from {{ versions }}
    window by_time as (partition by dataset_id order by scanned_at asc, content_hash asc)
),

-- Only what has changed is taken apart, whole records are wide: most never change.
several as (
    select
        dataset_id,
        version_number,
        scanned_at,
        content_hash
    from numbered
    where version_number > 1 or superseded_at is not null
),

joined as (
    select
        versions.*,
        numbered.version_number,
        numbered.superseded_at
    from {{ versions }} as versions
    inner join numbered
        on
            versions.dataset_id = numbered.dataset_id
            and versions.scanned_at = numbered.scanned_at
            and versions.content_hash is not distinct from numbered.content_hash
),

cleaned as (
    select
        * exclude (record) replace (
            {{ not_blank('product_id') }} as product_id,
            {{ not_blank('op_id') }} as op_id,
            {{ not_blank('instrument_program_id') }} as instrument_program_id,
            {{ not_blank('instrument') }} as instrument,
            {{ known_status('status') }} as status
        )
    from joined
),

whole as (
    select * replace ({{ product_of() }} as product_id)
    from cleaned
),

-- Field by field as they are typed: with records as maps of JSON the whole model takes a third longer.
fields as (
    select
        several.version_number as number_of_version,
        unnest(versions.record)  -- noqa: AL03
    from {{ versions }} as versions
    inner join several
        on
            versions.dataset_id = several.dataset_id
            and versions.scanned_at = several.scanned_at
            and versions.content_hash is not distinct from several.content_hash
),

-- Each column of bronze becomes what it was and what it is, null where nothing has changed.
compared as (
    select
        dataset_id,
        number_of_version,
        if(
            {{ field }} is distinct from lag({{ field }}) over by_number,
            [to_json(lag({{ field }}) over by_number), to_json({{ field }})],
            null
        )
    from fields
    window by_number as (partition by dataset_id order by number_of_version)
),

-- In the order of the columns.
ordered as (
    select [name for name in json_keys(to_json(record)) if name not in {{ aside }}] as field_names
    from {{ versions }}
    limit 1  -- noqa: AM09
),

listed as (
    select
        dataset_id,
        number_of_version as version_number,
        list_zip(
            (select ordered.field_names from ordered),
            list_value(*columns(* exclude (dataset_id, number_of_version)))
        ) as parts
    from compared
    where number_of_version > 1
),

changed as (
    select
        dataset_id,
        version_number,
        [
            {
                'field': part[1],
                'old_value': part[2][1] ->> '$',
                'new_value': part[2][2] ->> '$'
            }
            for part in parts if part[2] is not null
        ] as changes
    from listed
),

named as (
    select
        *,
        [part['field'] for part in changes] as changed_fields
    from changed
),

final as (
    select
        whole.dataset_id,
        whole.version_number::bigint as version_number,
        whole.scanned_at as seen_at,
        whole.superseded_at,
        whole.update_date as store_updated_at,
        case when whole.version_number = 1 then 'new' else 'changed' end as change_type,
        coalesce(named.changed_fields, []) as changed_fields,
        coalesce(named.changes, []) as changes,
        whole.product_id,
        whole.op_id,
        whole.instrument_program_id,
        whole.proposal_id,
        whole.experiment_id,
        whole.instrument,
        whole.status,
        whole.create_date,
        whole.start_time,
        whole.end_time,
        whole.bounding_box,
        whole.wavelength_min_nm,
        whole.wavelength_max_nm,
        whole.spectral_lines,
        whole.stokes,
        whole.frame_count,
        whole.health_good_count,
        whole.gos_open_count,
        whole.ao_locked_count,
        whole.is_embargoed,
        whole.embargo_end_date,
        whole.bucket,
        whole.job_id,
        whole.content_hash
    from whole
    left join named on whole.dataset_id = named.dataset_id and whole.version_number = named.version_number
)

select * from final
