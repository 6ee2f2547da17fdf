"""Why the frames of a claimed OP could not be staged, as an annotation in the ledger.

A claimed OP goes on without its frames, so their failing moves nothing. Staging itself is in ``staging``.
"""

from __future__ import annotations

from dagster_l2.base.errors import error_class, one_sentence_of
from dagster_l2.ledger import Annotation, Ledger, Present, State

STAGING = "staging_failed"
"""Kind of annotation: details ``class, message``, both None where what had failed has come since."""

MAY_GO_ON = (State.WORKING, State.INVERTED)
"""States whose OPs must stay as they are: a hand-over or a release is in order without frames."""


def staging_failure(ledger: Ledger, op_id: str) -> Annotation | None:
    """How the latest staging of a claimed OP failed; None when it did not."""
    said = ledger.latest_annotations([STAGING], op_id).get(op_id, {}).get(STAGING)
    return said if said and said.details.get("message") is not None else None


def note_failure(ledger: Ledger, present: Present, error: Exception, *, actor: str) -> None:
    """Note why it failed, unless the same was noted last."""
    details = {"class": error_class(error), "message": one_sentence_of(error)}
    before = staging_failure(ledger, present.op_id)
    if before is None or dict(before.details) != details:
        ledger.annotate(present.op_id, kind=STAGING, actor=actor, details=details)


def note_success(ledger: Ledger, op_id: str, *, actor: str) -> None:
    """Take back what was noted, if anything was."""
    if staging_failure(ledger, op_id) is not None:
        ledger.annotate(op_id, kind=STAGING, actor=actor, details={"class": None, "message": None})
