"""The app put together: limits and log outside, then who asks, then what is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI
from starlette.convertors import Convertor, register_url_convertor

from dagster_l2.service.access import Access
from dagster_l2.service.answers import Refusals
from dagster_l2.service.backend import Backend, Limits
from dagster_l2.service.board import add_board
from dagster_l2.service.limits import BodyLimit, RequestLog
from dagster_l2.service.reads import add_reads
from dagster_l2.service.writes import add_writes

_THREADS = 2
"""Answers are processor work under one lock of Python's, which more threads only take from each other
(docs/benchmarks.md)."""


class _Any(Convertor[str]):
    """Any text: an id from the store may hold slashes, which `path` takes, and lines, which it does not."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any", _Any())


def service_app(backend: Backend, limits: Limits | None = None) -> FastAPI:
    """The service as an ASGI app; the backend stays the caller's."""
    limits = limits or Limits()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        yield

    # Its pages of documentation would load from outside, and its description is not for everybody.
    app = FastAPI(
        title="dagster_l2",
        description="The ledger of observing programs over HTTP. All times are UTC.",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    access = Access(backend, limits)
    # The orders first: the address of an OP takes any text, slashes and all.
    add_writes(app, backend, access)
    add_reads(app, backend, access)
    board = add_board(app, backend, access)
    Refusals("/board", board.refusal).add_to(app)
    app.add_middleware(BodyLimit, most=limits.body_bytes)
    app.add_middleware(RequestLog)
    return app
