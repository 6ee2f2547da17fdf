-- Table macros of the analysts' file, created in it after the marts are there.

-- The state of each OP as it was known at a moment (UTC): what had been recorded by then, not what happened by then.
create or replace macro op_state_as_of(ts) as table
    select
        op_id,
        to_state as state,
        occurred_at as since,
        seq,
        actor,
        inversion_id
    from op_history
    where recorded_at <= ts
    qualify row_number() over (partition by op_id order by seq desc) = 1;

-- The datasets that were current, as the scans had found them by a moment (UTC): the newest version of each record
-- known then, and of each product the newest that was ACTIVE.
create or replace macro datasets_as_of(ts) as table
    select * exclude (version_number, superseded_at, change_type, changed_fields, changes)
    from (
        select *
        from dataset_versions
        where seen_at <= ts
        qualify row_number() over (partition by dataset_id order by version_number desc) = 1
    ) as known
    where status = 'ACTIVE'
    qualify row_number() over (partition by product_id order by create_date desc, dataset_id desc) = 1;
