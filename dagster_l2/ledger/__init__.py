"""The ledger: states of observing programs, every step they take, and what people hand over.

Append-only, by the database itself. It decides from verdicts it is given; it reads no warehouse, no settings
and no store.
"""

from dagster_l2.ledger.base import INPUTS_CHANGED, PACKAGE_KEYS, new_inversion_id
from dagster_l2.ledger.errors import (
    Conflict,
    IllegalTransition,
    InputsChanged,
    InvalidRecord,
    LedgerError,
    LedgerUnavailable,
    NotAllowed,
    UnknownOp,
)
from dagster_l2.ledger.ledger import Ledger
from dagster_l2.ledger.records import (
    Annotation,
    Decisions,
    FailedVerdict,
    Outcome,
    Present,
    ScienceEvent,
    Transition,
    Verdict,
)
from dagster_l2.ledger.states import CAN_FAIL, EDGES, HAS_INVERSION, Edge, State, mermaid, successors

__all__ = [
    "CAN_FAIL",
    "EDGES",
    "HAS_INVERSION",
    "INPUTS_CHANGED",
    "PACKAGE_KEYS",
    "Annotation",
    "Conflict",
    "Decisions",
    "Edge",
    "FailedVerdict",
    "IllegalTransition",
    "InputsChanged",
    "InvalidRecord",
    "Ledger",
    "LedgerError",
    "LedgerUnavailable",
    "NotAllowed",
    "Outcome",
    "Present",
    "ScienceEvent",
    "State",
    "Transition",
    "UnknownOp",
    "Verdict",
    "mermaid",
    "new_inversion_id",
    "successors",
]
