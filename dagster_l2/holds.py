"""What holds an inversion back from being published, as annotations in the ledger: approvals and reasons.

Whether something holds it back is decided in ``publishing``; here it is noted and looked up.
"""

from __future__ import annotations

from dagster_l2.ledger import Ledger, Present

APPROVED = "publish_approved"
WAITS = "publish_waits"


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
    notes = [
        note
        for note in ledger.annotations(present.op_id, WAITS)
        if note.details.get("inversion_id") == present.inversion_id
    ]
    return str(notes[-1].details["reason"]) if notes else None


def note_waiting(ledger: Ledger, present: Present, reason: str, *, actor: str) -> None:
    """Note what holds an inversion back, unless that is what was noted last."""
    if waiting_reason(ledger, present) != reason:
        details = {"inversion_id": present.inversion_id, "reason": reason}
        ledger.annotate(present.op_id, kind=WAITS, actor=actor, details=details)
