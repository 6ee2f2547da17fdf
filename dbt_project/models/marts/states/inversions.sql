{%- set said = {
    'instrument_program_id': 'VARCHAR',
    'claimed_by': 'VARCHAR',
    'commit': 'VARCHAR',
    'bucket': 'VARCHAR',
    'asdf_object_key': 'VARCHAR',
    'dataset_ids': ['VARCHAR'],
    'spectral_lines': ['VARCHAR'],
} -%}

with history as (
    select * from {{ ref('op_history') }}
),

-- One reading of the JSON for all that is wanted of it.
read as (
    select
        *,
        json_transform(details, '{{ said | tojson }}') as said
    from history
    where inversion_id is not null
),

steps as (
    select
        * exclude (said),
        said.instrument_program_id,
        said.claimed_by,
        said['commit'] as commit_hash,
        said.bucket,
        said.asdf_object_key,
        said.dataset_ids,
        said.spectral_lines
    from read
),

-- max_by passes over nulls: what was said last is what holds, and what a later step left out stays.
final as (
    select
        inversion_id,
        min(op_id) as op_id,
        max_by(instrument_program_id, seq) as instrument_program_id,
        min_by(coalesce(claimed_by, actor), seq) filter (where to_state = 'Working') as claimed_by,
        min(occurred_at) filter (where to_state = 'Working') as claimed_at,
        max(occurred_at) filter (where to_state = 'Inverted') as inverted_at,
        max(occurred_at) filter (where to_state = 'Published') as published_at,
        max_by(to_state, seq) as last_state,
        coalesce(max_by(dataset_ids, seq), []) as dataset_ids,
        coalesce(max_by(spectral_lines, seq), []) as spectral_lines,
        max_by(commit_hash, seq) as commit_hash,
        max_by(bucket, seq) as bucket,
        max_by(asdf_object_key, seq) as asdf_object_key
    from steps
    group by inversion_id
)

select * from final
