"""The states of an observing program and the edges between them, written once.

The database's edges and guards, the diagram in the docs and the checks of the ledger derive from here.
No storage and no rules of who decides when: those are in ``guards`` and ``verdicts``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Where an observing program stands."""

    DISCOVERED = "Discovered"
    INVERTIBLE = "Invertible"
    NOT_INVERTIBLE = "NotInvertible"
    PREPROCESSED = "Preprocessed"
    WORKING = "Working"
    INVERTED = "Inverted"
    PUBLISHED = "Published"
    ERROR = "Error"


class Edge(NamedTuple):
    """One allowed step; ``from_state`` is None for the first one of an OP."""

    from_state: State | None
    to_state: State
    who: str


CAN_FAIL = tuple(state for state in State if state not in (State.PUBLISHED, State.ERROR))
"""The states a failed step can leave for Error, and a retry can return to."""

EDGES: tuple[Edge, ...] = (
    Edge(None, State.DISCOVERED, "scan: a new OP"),
    Edge(State.DISCOVERED, State.INVERTIBLE, "verdict, once the OP is complete"),
    Edge(State.NOT_INVERTIBLE, State.INVERTIBLE, "verdict, once the OP is complete"),
    Edge(State.DISCOVERED, State.NOT_INVERTIBLE, "verdict"),
    Edge(State.INVERTIBLE, State.NOT_INVERTIBLE, "verdict"),
    Edge(State.PREPROCESSED, State.NOT_INVERTIBLE, "verdict"),
    Edge(State.INVERTIBLE, State.PREPROCESSED, "preprocess: the input package is written"),
    Edge(State.PREPROCESSED, State.INVERTIBLE, "the input package is out of date"),
    Edge(State.PREPROCESSED, State.WORKING, "a scientist claims it"),
    Edge(State.WORKING, State.PREPROCESSED, "released"),
    Edge(State.WORKING, State.INVERTED, "products verified after a ready event"),
    Edge(State.INVERTED, State.WORKING, "products withdrawn"),
    Edge(State.INVERTED, State.PUBLISHED, "publish confirmed by reading it back"),
    Edge(State.PUBLISHED, State.INVERTIBLE, "a person re-opens it"),
    *(Edge(state, State.ERROR, "a step failed") for state in CAN_FAIL),
    *(Edge(State.ERROR, state, "retried") for state in CAN_FAIL),
)

HAS_INVERSION = (State.WORKING, State.INVERTED, State.PUBLISHED)
"""The states in which an OP has an inversion id; Error keeps the one of the state before it."""

NEW_INVERSION = tuple(
    edge.from_state
    for edge in EDGES
    if edge.to_state is State.WORKING and edge.from_state not in (None, State.ERROR)
)
"""The states from which entering Working makes a new inversion id."""

_ALLOWED = frozenset((edge.from_state, edge.to_state) for edge in EDGES)


def is_edge(from_state: State | None, to_state: State) -> bool:
    """Whether the step is in the table (a retry must also return to the state before the Error)."""
    return (from_state, to_state) in _ALLOWED


def successors(state: State | None) -> tuple[State, ...]:
    """The states that can follow ``state``, in the order of the table."""
    return tuple(edge.to_state for edge in EDGES if edge.from_state == state)


def mermaid() -> str:
    """The state diagram as Mermaid text, for the docs; Error is drawn once for all that can fail."""
    lines = ["stateDiagram-v2"]
    for edge in EDGES:
        if State.ERROR in (edge.from_state, edge.to_state):
            continue
        lines.append(f"    {edge.from_state or '[*]'} --> {edge.to_state}: {edge.who.replace(':', ',')}")
    lines.append(f"    note right of {State.ERROR}")
    lines.append(f"        from and back to {', '.join(CAN_FAIL)}")
    lines.append("    end note")
    return "\n".join(lines) + "\n"
