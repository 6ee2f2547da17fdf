with transitions as (
    select * from {{ ref('stg_ledger__transitions') }}
),

steps as (
    select
        *,
        details ->> 'instrument_program_id' as instrument_program_id,
        details ->> 'claimed_by' as claimed_by,
        details ->> 'commit' as commit_hash,
        details ->> 'bucket' as bucket,
        try_cast(details -> 'dataset_ids' as varchar[]) as dataset_ids,
        try_cast(details -> 'spectral_lines' as varchar[]) as spectral_lines
    from transitions
    where inversion_id is not null
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
        max_by(bucket, seq) as bucket
    from steps
    group by inversion_id
)

select * from final
