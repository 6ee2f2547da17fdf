"""Who asks, by a personal token, and what a role may: readers look, scientists work, operators decide.

Tokens are given out by a command on the machine, never by the service.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from dagster_l2.ledger import ROLES, Role, Token
from dagster_l2.service.backend import Backend, Limits
from dagster_l2.service.limits import Buckets

_BEARER = HTTPBearer(auto_error=False, description="A personal token, from `l2 token add`.")


class Access:
    """The check at the door."""

    def __init__(self, backend: Backend, limits: Limits) -> None:
        self._backend = backend
        per_second = limits.per_second
        self._requests = None if per_second is None else Buckets(per_second, limits.burst)
        self._failures = Buckets(limits.failures_per_minute / 60, limits.failures_per_minute)

    def as_least(self, role: Role) -> Callable[..., Token]:
        """A dependency that lets in who has this role or a higher one."""

        def who(
            request: Request,
            bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)] = None,
        ) -> Token:
            return self.enter(request, bearer.credentials if bearer else None, role)

        return who

    def enter(self, request: Request, secret: str | None, role: Role) -> Token:
        """Who holds the token.

        Raises
        ------
        HTTPException
            401 without a token that holds, 403 for a role that may not, 429 for too many requests.
        """
        token = None if secret is None else self._backend.ledger.holder(secret)
        if token is None:
            self._slow_down(self._failures, request.client.host if request.client else "")
            said = "A personal token is needed" if secret is None else "This token does not hold"
            raise HTTPException(
                401,
                f"{said}; an operator gives one out with `l2 token add`.",
                {"WWW-Authenticate": "Bearer"},
            )
        request.state.who = token
        if self._requests is not None:
            self._slow_down(self._requests, token.token_id)
        if ROLES.index(token.role) < ROLES.index(role):
            article = "an" if role == "operator" else "a"
            raise HTTPException(
                403, f"{token.name} has a {token.role}'s token; this takes {article} {role}'s."
            )
        return token

    @staticmethod
    def _slow_down(buckets: Buckets, client: str) -> None:
        wait = buckets.take(client)
        if wait:
            seconds = max(1, round(wait + 0.5))
            raise HTTPException(
                429, f"Too many requests; try again in {seconds} s.", {"Retry-After": str(seconds)}
            )
