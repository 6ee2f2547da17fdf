"""What holds an inversion back from being published, as annotations in the ledger: approvals and reasons.

Whether something holds it back is decided in ``publishing``; here it is noted and looked up.
"""

from __future__ import annotations

from collections.abc import Mapping

from dagster_l2.ledger import Annotation, Ledger, Present

APPROVED = "publish_approved"
WAITS = "publish_waits"

# How the reasons of `publishing.publish_blocker` begin.
_EMBARGO = "embargoed"
_APPROVAL = "waits for approval"


def is_approved(ledger: Ledger, present: Present) -> bool:
    """Whether an operator has approved the publishing of this inversion."""
    notes = ledger.annotations(present.op_id, APPROVED)
    return any(note.details.get("inversion_id") == present.inversion_id for note in notes)


def approve(ledger: Ledger, present: Present, *, actor: str) -> None:
    """Record an operator's approval; a second one changes nothing."""
    if not is_approved(ledger, present):
        details = {"inversion_id": present.inversion_id}
        ledger.annotate(present.op_id, kind=APPROVED, actor=actor, details=details)


def waiting_reason(ledger: Ledger, present: Present) -> str | None:
    """Why this Inverted OP was not published when it was last looked at; None when nothing was noted."""
    latest = ledger.latest_annotations([WAITS], present.op_id).get(present.op_id, {})
    noted = _of_this_inversion(present, latest.get(WAITS))
    return str(noted.details["reason"]) if noted else None


def waits_for(present: Present, latest: Mapping[str, Annotation]) -> str | None:
    """What an Inverted OP waits for now, from its latest annotations; None when nothing is known.

    An approval counts as soon as it is given, before publishing is tried again.
    """
    noted = _of_this_inversion(present, latest.get(WAITS))
    if noted is None:
        return None
    approval = _approval_since(present, latest, noted)
    if approval is not None:
        return f"approved by {approval.actor}: the next run publishes it"
    return str(noted.details["reason"])


def is_held(present: Present, latest: Mapping[str, Annotation]) -> bool:
    """Whether something holds an Inverted OP back; what was approved since waits for a run only."""
    noted = _of_this_inversion(present, latest.get(WAITS))
    return noted is not None and _approval_since(present, latest, noted) is None


def is_embargo(reason: str | None) -> bool:
    """Whether it is an embargo that holds an inversion back."""
    return reason is not None and reason.startswith(_EMBARGO)


def note_waiting(ledger: Ledger, present: Present, reason: str, *, actor: str) -> None:
    """Note what holds an inversion back, unless that is what was noted last."""
    if waiting_reason(ledger, present) != reason:
        details = {"inversion_id": present.inversion_id, "reason": reason}
        ledger.annotate(present.op_id, kind=WAITS, actor=actor, details=details)


def _approval_since(
    present: Present, latest: Mapping[str, Annotation], noted: Annotation
) -> Annotation | None:
    """The approval that was given after it was noted that one is waited for."""
    approval = _of_this_inversion(present, latest.get(APPROVED))
    if approval is None or not str(noted.details["reason"]).startswith(_APPROVAL):
        return None
    return approval if approval.annotation_id > noted.annotation_id else None


def _of_this_inversion(present: Present, annotation: Annotation | None) -> Annotation | None:
    is_its = annotation is not None and annotation.details.get("inversion_id") == present.inversion_id
    return annotation if is_its else None
