with versions as (
    select * from {{ ref('stg_store__datasets') }}
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
    from versions
),

numbered as (
    select
        * replace ({{ product_of() }} as product_id),
        row_number() over by_time as version_number,
        lead(scanned_at) over by_time as superseded_at
    from cleaned
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
    qualify count(*) over (partition by dataset_id) > 1
),

records as (
    select
        several.dataset_id,
        several.version_number,
        to_json(versions.record)::map (varchar, json) as record_fields
    from versions
    inner join several
        on
            versions.dataset_id = several.dataset_id
            and versions.scanned_at = several.scanned_at
            and versions.content_hash = several.content_hash
),

pairs as (
    select
        later.dataset_id,
        later.version_number,
        later.record_fields as later_fields,
        earlier.record_fields as earlier_fields
    from records as later
    inner join records as earlier
        on later.dataset_id = earlier.dataset_id and later.version_number = earlier.version_number + 1
),

-- The keys of both are the columns of bronze, in one order. How a version was brought is no change of the record.
changed as (
    select
        dataset_id,
        version_number,
        [
            {
                'field': part[1],
                'old_value': part[2] ->> '$',
                'new_value': part[3] ->> '$'
            }
            for part in list_zip(map_keys(later_fields), map_values(earlier_fields), map_values(later_fields))
            if part[2] is distinct from part[3]
            and not list_contains(['scanned_at', 'job_id', 'content_hash'], part[1])
        ] as changes
    from pairs
),

named as (
    select
        *,
        [part['field'] for part in changes] as changed_fields
    from changed
),

final as (
    select
        numbered.dataset_id,
        numbered.version_number::bigint as version_number,
        numbered.scanned_at as seen_at,
        numbered.superseded_at,
        numbered.update_date as store_updated_at,
        case when numbered.version_number = 1 then 'new' else 'changed' end as change_type,
        coalesce(named.changed_fields, []) as changed_fields,
        coalesce(named.changes, []) as changes,
        numbered.product_id,
        numbered.op_id,
        numbered.instrument_program_id,
        numbered.proposal_id,
        numbered.experiment_id,
        numbered.instrument,
        numbered.status,
        numbered.create_date,
        numbered.start_time,
        numbered.end_time,
        numbered.bounding_box,
        numbered.wavelength_min_nm,
        numbered.wavelength_max_nm,
        numbered.spectral_lines,
        numbered.stokes,
        numbered.frame_count,
        numbered.health_good_count,
        numbered.gos_open_count,
        numbered.ao_locked_count,
        numbered.is_embargoed,
        numbered.embargo_end_date,
        numbered.bucket,
        numbered.job_id,
        numbered.content_hash
    from numbered
    left join named on numbered.dataset_id = named.dataset_id and numbered.version_number = named.version_number
)

select * from final
