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
