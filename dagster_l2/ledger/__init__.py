"""The ledger: states of observing programs, every step they take, and what people hand over.

Append-only, by the database itself. It decides from verdicts it is given; it reads no warehouse, no settings
and no store.
"""

from dagster_l2.ledger.base import INPUTS_CHANGED, PACKAGE_KEYS, new_inversion_id
from dagster_l2.ledger.chain import BadDump, Dumped
from dagster_l2.ledger.check import Report, check_database
from dagster_l2.ledger.database import reach_database, upgrade_database
from dagster_l2.ledger.dump import Loaded
from dagster_l2.ledger.errors import (
    Conflict,
    IllegalTransition,
    InputsChanged,
    InvalidRecord,
    KeyUsed,
    LedgerError,
    LedgerUnavailable,
    NotAllowed,
    UnknownOp,
)
from dagster_l2.ledger.exporting import Growing
from dagster_l2.ledger.ledger import Ledger
from dagster_l2.ledger.migrate import check_known
from dagster_l2.ledger.people import ASSIGNED, NOTE, PRIORITY, PRIORITY_LEVELS
from dagster_l2.ledger.records import (
    Annotation,
    Decisions,
    Delivery,
    FailedVerdict,
    InversionStep,
    Outcome,
    Present,
    RaisedAlert,
    ReadyWord,
    Receipt,
    Retries,
    ScienceEvent,
    Stay,
    Transition,
    Verdict,
)
from dagster_l2.ledger.recovery import ErrorClass, tries
from dagster_l2.ledger.replay import Finding, Replay, Step
from dagster_l2.ledger.requests import Request
from dagster_l2.ledger.states import CAN_FAIL, EDGES, HAS_INVERSION, Edge, State, mermaid, successors
from dagster_l2.ledger.tokens import ROLES, Role, Token
from dagster_l2.ledger.verdicts import Move, moves

__all__ = [
    "ASSIGNED",
    "CAN_FAIL",
    "EDGES",
    "HAS_INVERSION",
    "INPUTS_CHANGED",
    "NOTE",
    "PACKAGE_KEYS",
    "PRIORITY",
    "PRIORITY_LEVELS",
    "ROLES",
    "Annotation",
    "BadDump",
    "Conflict",
    "Decisions",
    "Delivery",
    "Dumped",
    "Edge",
    "ErrorClass",
    "FailedVerdict",
    "Finding",
    "Growing",
    "IllegalTransition",
    "InputsChanged",
    "InvalidRecord",
    "InversionStep",
    "KeyUsed",
    "Ledger",
    "LedgerError",
    "LedgerUnavailable",
    "Loaded",
    "Move",
    "NotAllowed",
    "Outcome",
    "Present",
    "RaisedAlert",
    "ReadyWord",
    "Receipt",
    "Replay",
    "Report",
    "Request",
    "Retries",
    "Role",
    "ScienceEvent",
    "State",
    "Stay",
    "Step",
    "Token",
    "Transition",
    "UnknownOp",
    "Verdict",
    "check_database",
    "check_known",
    "mermaid",
    "moves",
    "new_inversion_id",
    "reach_database",
    "successors",
    "tries",
    "upgrade_database",
]
