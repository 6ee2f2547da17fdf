"""What can be ordered: claim, release, ready, withdraw, retry, publish, reopen, notes, priority, assign.

Each is the ledger's function that the command calls. With an idempotency key the same request again is the
same event: its answer is made from what was written then.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Header, Response
from pydantic import BaseModel

from dagster_l2.ledger import (
    Annotation,
    Delivery,
    Ledger,
    ReadyWord,
    Receipt,
    Request,
    Token,
    Transition,
)
from dagster_l2.service.access import Access
from dagster_l2.service.answers import as_json, refusal
from dagster_l2.service.backend import Backend, Row
from dagster_l2.service.shapes import (
    Approved,
    Assign,
    Event,
    Moved,
    Note,
    Priority,
    Ready,
    Refusal,
    Reopen,
    Said,
    Withdraw,
)

T = TypeVar("T")

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="Drawn by the client, the same for each try of one request.",
    ),
]
_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Refusal, "description": "No token, or one that does not hold."},
    403: {"model": Refusal, "description": "The token's role may not."},
    404: {"model": Refusal, "description": "There is no such OP."},
    409: {"model": Refusal, "description": "Not in its present state, or somebody else's."},
    413: {"model": Refusal},
    422: {"model": Refusal, "description": "Something about the request is wrong."},
    429: {"model": Refusal},
    503: {"model": Refusal},
}


def add_writes(app: FastAPI, backend: Backend, access: Access) -> None:
    """Add what can be ordered."""
    router = APIRouter(prefix="/observing-programs/{op_id:any}", responses=_REFUSALS, tags=["work"])
    scientist = Depends(access.as_least("scientist"))
    operator = Depends(access.as_least("operator"))
    _work(router, backend, scientist)
    _back(router, backend, scientist)
    _decide(router, backend, operator)
    _say(router, backend, scientist)
    app.include_router(router)


def _work(router: APIRouter, backend: Backend, scientist: Any) -> None:
    @router.post("/claim", responses={200: {"model": Moved}})
    def claim(op_id: str, key: Key = None, who: Token = scientist) -> Response:
        """Take a Preprocessed OP to invert it; it gets an inversion id."""
        backend.check_writable()
        step = _once(
            backend, who, key, "claim", op_id, None, lambda ledger: ledger.claim(op_id, actor=who.name)
        )
        return as_json(moved(step))

    @router.post("/release", responses={200: {"model": Moved}})
    def release(op_id: str, key: Key = None, who: Token = scientist) -> Response:
        """Give a claimed OP back to the queue."""

        def order(ledger: Ledger) -> Transition:
            return ledger.release(op_id, actor=who.name, is_operator=who.role == "operator")

        return as_json(moved(_once(backend, who, key, "release", op_id, None, order)))

    @router.post("/ready", status_code=202, responses={202: {"model": Event}})
    def ready(op_id: str, body: Ready, key: Key = None, who: Token = scientist) -> Response:
        """Say that the products of a claimed OP are ready; they are verified and published next."""
        backend.check_writable()

        def order(ledger: Ledger) -> Receipt:
            word = ReadyWord(
                event_id=str(uuid.uuid4()),
                op_id=op_id,
                products=backend.check_ready(body.products, body.commit),
                commit_hash=body.commit,
                actor=who.name,
                inversion_id=body.inversion_id,
                dataset_ids=None if body.datasets is None else tuple(body.datasets),
                inputs_changed_ok=body.inputs_changed_ok,
                sent_at=datetime.now(UTC),
                checksums=body.checksums,
            )
            delivery = Delivery(f"service-{uuid.uuid4()}", "service", f"token {who.token_id}")
            return ledger.receive(word, delivery, is_operator=who.role == "operator")

        receipt = _once(backend, who, key, "ready", op_id, body, order)
        if not receipt.is_taken:
            status = 404 if receipt.outcome == "unknown_op" else 409
            return refusal(status, receipt.reason or receipt.outcome)
        return as_json(
            {
                "event_id": receipt.event_id,
                "op_id": receipt.op_id,
                "inversion_id": receipt.inversion_id,
                "received_at": receipt.received_at,
            },
            202,
        )


def _back(router: APIRouter, backend: Backend, scientist: Any) -> None:
    @router.post("/withdraw", responses={200: {"model": Moved}})
    def withdraw(op_id: str, body: Withdraw, key: Key = None, who: Token = scientist) -> Response:
        """Take back products that are not published yet; the OP is Working again as a new inversion."""
        backend.check_writable()

        def order(ledger: Ledger) -> Transition:
            is_operator = who.role == "operator"
            return ledger.withdraw(op_id, actor=who.name, reason=body.reason, is_operator=is_operator)

        return as_json(moved(_once(backend, who, key, "withdraw", op_id, body, order)))

    @router.post("/retry", responses={200: {"model": Moved}})
    def retry(op_id: str, key: Key = None, who: Token = scientist) -> Response:
        """Bring an OP in Error back to the state before it; the next pass tries the step again."""
        step = _once(
            backend, who, key, "retry", op_id, None, lambda ledger: ledger.retry(op_id, actor=who.name)
        )
        return as_json(moved(step))


def _decide(router: APIRouter, backend: Backend, operator: Any) -> None:
    @router.post("/publish", status_code=202, responses={202: {"model": Approved}})
    def publish(op_id: str, key: Key = None, who: Token = operator) -> Response:
        """Approve an Inverted OP; the next hand-over run publishes it."""
        backend.check_writable()
        request = None if key is None else _request(who, key, "publish", op_id, None)
        if request is None or backend.ledger.written_by(request) is None:
            backend.approve(
                backend.ledger if request is None else backend.ledger.once(request), op_id, who.name
            )
        present = backend.ledger.present(op_id)
        return as_json(
            {
                "op_id": op_id,
                "inversion_id": present.inversion_id,
                "state": present.state.value,
                "approved_by": who.name,
            },
            202,
        )

    @router.post("/reopen", responses={200: {"model": Moved}})
    def reopen(op_id: str, body: Reopen, key: Key = None, who: Token = operator) -> Response:
        """Open a Published OP again: it is prepared anew and can be claimed once more."""
        backend.check_writable()

        def order(ledger: Ledger) -> Transition:
            return ledger.reopen(op_id, actor=who.name, reason=body.reason)

        return as_json(moved(_once(backend, who, key, "reopen", op_id, body, order)))


def _say(router: APIRouter, backend: Backend, scientist: Any) -> None:
    @router.post("/notes", status_code=201, responses={201: {"model": Said}})
    def note(op_id: str, body: Note, key: Key = None, who: Token = scientist) -> Response:
        """Add a remark to an OP."""

        def order(ledger: Ledger) -> Annotation:
            return ledger.note(op_id, body.text, actor=who.name)

        return as_json(_said(_once(backend, who, key, "note", op_id, body, order)), 201)

    @router.post("/priority", status_code=201, responses={201: {"model": Said}})
    def priority(op_id: str, body: Priority, key: Key = None, who: Token = scientist) -> Response:
        """Set the priority of an OP; one level outranks any merit, 0 takes it back."""

        def order(ledger: Ledger) -> Annotation:
            return ledger.prioritize(op_id, body.level, reason=body.reason, actor=who.name)

        return as_json(_said(_once(backend, who, key, "priority", op_id, body, order)), 201)

    @router.post("/assign", status_code=201, responses={201: {"model": Said}})
    def assign(op_id: str, body: Assign, key: Key = None, who: Token = scientist) -> Response:
        """Say who should take an OP; anybody else can still claim it."""

        def order(ledger: Ledger) -> Annotation:
            return ledger.assign(op_id, body.to, actor=who.name)

        return as_json(_said(_once(backend, who, key, "assign", op_id, body, order)), 201)


def _once(
    backend: Backend,
    who: Token,
    key: str | None,
    action: str,
    op_id: str,
    body: BaseModel | None,
    order: Callable[[Ledger], T],
) -> T:
    """Give an order once, however often the request comes."""
    if key is None:
        return order(backend.ledger)
    request = _request(who, key, action, op_id, body)
    # Asked before the order's own checks: products that were handed over may be gone from their place by now.
    before: Any = backend.ledger.written_by(request)
    return before if before is not None else order(backend.ledger.once(request))


def _request(who: Token, key: str, action: str, op_id: str, body: BaseModel | None) -> Request:
    said = None if body is None else body.model_dump(mode="json")
    return Request(who.name, key, json.dumps([action, op_id, said], sort_keys=True))


def moved(step: Transition) -> Row:
    """A step as it is answered."""
    return {
        "op_id": step.op_id,
        "state": step.to_state.value,
        "inversion_id": step.inversion_id,
        "actor": step.actor,
        "occurred_at": step.occurred_at,
        "details": step.details,
    }


def _said(said: Annotation) -> Row:
    return {
        "op_id": said.op_id,
        "kind": said.kind,
        "actor": said.actor,
        "recorded_at": said.recorded_at,
        **said.details,
    }
