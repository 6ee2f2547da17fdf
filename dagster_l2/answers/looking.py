"""Everything about one OP, as `l2 show`, `l2 history` and the service tell it: gold and ledger read together.

Nothing is printed here, and nothing decided.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from dagster_l2.answers.explain import read_judged, verdict_in_words
from dagster_l2.ledger import ASSIGNED, NOTE, PRIORITY, Annotation, Ledger, Present, State
from dagster_l2.pipeline.gold import Ask, NoGold, read_gold
from dagster_l2.pipeline.holds import waiting_reason
from dagster_l2.pipeline.unstaged import staging_failure
from dagster_l2.settings import Settings


def everything_of(
    settings: Settings, ledger: Ledger, op: str, ask: Ask | None = None, *, with_quota: bool = True
) -> dict[str, Any]:
    """All that is known of an OP, but its history.

    Parameters
    ----------
    ask
        Who reads gold; the file is opened for each query unless given.
    with_quota
        Whether to say what the staged frames of all OPs take, which looks at every file of them.

    Raises
    ------
    UnknownOp
        When the ledger has no such OP.
    """
    ask = ask or partial(read_gold, settings.gold)
    present = ledger.present(op)
    state = state_of(present)
    if present.state is State.INVERTED:
        state["waits for"] = waiting_reason(ledger, present)
    staging = staging_of(settings, op, with_quota=with_quota)
    if staging is not None:
        failure = staging_failure(ledger, op)
        staging["failed"] = failure.details["message"] if failure else None
    try:
        judged = read_judged(ask, op)
    except NoGold:
        judged = None
    return {
        "op_id": op,
        "state": state,
        "people": people_of(ledger, op),
        "observing_program": judged.program if judged else None,
        "verdict": verdict_in_words(judged),
        "qualification": judged.qualification if judged else [],
        "criteria": judged.criteria if judged else [],
        "input_package": _package_path(settings, present, staging),
        "staging": staging,
        "level2": level2_of(settings, present.inversion_id),
        "hand_overs": hand_overs_of(ledger, op),
    }


def history_rows(ledger: Ledger, op: str) -> list[dict[str, Any]]:
    """The history of an OP as plain rows; the state it is in has no end and no duration yet."""
    return [
        {
            "seq": step.seq,
            "from_state": step.from_state.value if step.from_state else None,
            "to_state": step.to_state.value,
            "occurred_at": step.occurred_at,
            "ended_at": stay.ended_at,
            "duration_s": None if stay.duration is None else stay.duration.total_seconds(),
            "actor": step.actor,
            "cause": step.cause,
            "inversion_id": step.inversion_id,
            "run_id": step.run_id,
            "rule_version": step.rule_version,
            "details": step.details,
        }
        for stay in ledger.stays(op)
        for step in [stay.step]
    ]


def people_of(ledger: Ledger, op: str, until: datetime | None = None) -> dict[str, Any]:
    """What people have said of an OP, up to a moment where given: assignment, priority, and all notes."""
    said = [note for note in ledger.annotations(op) if until is None or note.recorded_at <= until]
    latest = {annotation.kind: annotation for annotation in said}
    return {
        "assigned_to": latest[ASSIGNED].details.get("to") if ASSIGNED in latest else None,
        "priority": _plain(latest[PRIORITY]) if PRIORITY in latest else None,
        "notes": [_plain(annotation) for annotation in said if annotation.kind == NOTE],
    }


def _plain(said: Annotation) -> dict[str, Any]:
    return {"recorded_at": said.recorded_at, "actor": said.actor, **said.details}


def staging_of(settings: Settings, op: str, *, with_quota: bool = True) -> dict[str, Any] | None:
    """How the frames of an OP stand; None where it has no input package."""
    from dagster_l2.inputs import PackageUnreadable, package_folder, standing

    folder = package_folder(settings.data, op)
    try:
        content = standing(folder)
    except PackageUnreadable:
        return None
    quota = {}
    if with_quota:
        from dagster_l2.pipeline.quota import taken_bytes

        quota = {"taken_bytes": taken_bytes(settings), "quota_bytes": int(settings.stage_quota_gb * 1e9)}
    return {"folder": folder, **content, **quota}


def _package_path(settings: Settings, present: Present, staging: dict[str, Any] | None) -> str | None:
    """Where the input package lies below the data folder; only the step that made it says so itself."""
    from dagster_l2.inputs import PACKAGE_FILE

    said = present.details.get("package")
    if said is None and staging is not None:
        said = (staging["folder"] / PACKAGE_FILE).relative_to(settings.data).as_posix()
    return said


def level2_of(settings: Settings, inversion_id: str | None) -> dict[str, Any] | None:
    """The level-2 files of an inversion; None before they are written."""
    from dagster_l2.pipeline.level2 import files_of

    files = files_of(settings.data, inversion_id) if inversion_id else None
    if files is None:
        return None
    return {
        "inversion_id": inversion_id,
        "folder": files.folder,
        "asdf_object_key": files.asdf_object_key,
        "files": files.names,
        "bytes": files.size,
        "steps": files.manifest["steps"],
        "is_pointing_from_frames": files.manifest["is_pointing_from_frames"],
    }


def hand_overs_of(ledger: Ledger, op: str, until: datetime | None = None) -> list[dict[str, Any]]:
    """The ready events of an OP with what became of each, oldest first; up to a moment where given."""
    rows = []
    for event, settled in ledger.events(op):
        if until is not None and event.received_at > until:
            continue
        outcome = settled if settled and (until is None or settled.recorded_at <= until) else None
        rows.append(
            {
                "event_id": event.event_id,
                "received_at": event.received_at,
                "actor": event.actor,
                "inversion_id": event.inversion_id,
                "products": event.products,
                "dataset_ids": event.dataset_ids,
                "commit": event.commit_hash,
                "outcome": outcome.outcome if outcome else "waiting",
                "reason": outcome.reason if outcome else None,
            }
        )
    return rows


def state_of(present: Present) -> dict[str, Any]:
    """Where an OP stands, as plain values."""
    content: dict[str, Any] = {
        "state": present.state.value,
        "since": present.since,
        "actor": present.actor,
        "cause": present.cause,
        "inversion_id": present.inversion_id,
        "claimed_by": present.claimed_by,
        "inputs_changed": present.inputs_changed,
    }
    if present.state is State.ERROR:
        content |= {name: present.details.get(name) for name in ("step", "class", "message")}
    return content
