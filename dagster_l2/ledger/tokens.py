"""Personal tokens of the service: given out once, kept as hashes, taken back; all of it appended.

What a role may do is the service's.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast, get_args

import sqlalchemy as sa

from dagster_l2.ledger.base import Base, shown
from dagster_l2.ledger.columns import text
from dagster_l2.ledger.errors import InvalidRecord
from dagster_l2.ledger.tables import service_token_revocations, service_tokens

Role = Literal["reader", "scientist", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)
"""From the one who may least to the one who may most."""

_FORM = re.compile(r"l2_([0-9a-f]{10})_[A-Za-z0-9_-]{43}\Z")


@dataclass(frozen=True, slots=True)
class Token:
    """Who holds a token and as what; without the token itself."""

    token_id: str
    name: str
    role: Role
    added_at: datetime
    added_by: str
    revoked_at: datetime | None
    revoked_by: str | None


class Tokens(Base):
    """The tokens that were given out."""

    def add_token(self, name: str, role: Role, *, actor: str) -> tuple[Token, str]:
        """Give out a token: what is known of it, and the token, which nobody can tell again.

        Raises
        ------
        InvalidRecord
            When the role is none, or a name is empty or can't be stored.
        """
        if role not in ROLES:
            raise InvalidRecord(f"There is no role {role!r}; take one of {', '.join(ROLES)}.")
        token_id = secrets.token_hex(5)
        token = f"l2_{token_id}_{secrets.token_urlsafe(32)}"
        values = {
            "token_id": token_id,
            "name": text(name, "name of the one who gets the token").strip(),
            "role": role,
            "digest": _digest(token),
            "added_at": datetime.now(UTC),
            "actor": text(actor, "actor"),
        }
        with self._database.writing() as connection:
            connection.execute(sa.insert(service_tokens).values(values))
        return self._token(token_id), token

    def revoke_token(self, token_id: str, *, actor: str) -> Token:
        """Take a token back, from the next request on; a second time changes nothing.

        Raises
        ------
        InvalidRecord
            When no such token was given out.
        """
        values = {"token_id": token_id, "revoked_at": datetime.now(UTC), "actor": text(actor, "actor")}
        with self._database.writing() as connection:
            known = sa.select(service_tokens.c.token_id).where(service_tokens.c.token_id == token_id)
            if connection.execute(known.with_for_update()).first() is None:
                raise InvalidRecord(f"There is no token {shown(token_id)}; `l2 token list` shows all.")
            gone = sa.select(service_token_revocations).where(
                service_token_revocations.c.token_id == token_id
            )
            if connection.execute(gone).first() is None:
                connection.execute(sa.insert(service_token_revocations).values(values))
        return self._token(token_id)

    def tokens(self) -> list[Token]:
        """Every token that was given out, oldest first."""
        query = _tokens().order_by(service_tokens.c.added_at, service_tokens.c.token_id)
        with self._database.reading() as connection:
            return [_token(row) for row in connection.execute(query)]

    def holder(self, token: str) -> Token | None:
        """Who holds this token; None for one that was never given out, or was taken back."""
        form = _FORM.match(token)
        if form is None:
            return None
        query = _tokens().where(service_tokens.c.token_id == form[1])
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        if row is None or not hmac.compare_digest(row.digest, _digest(token)) or row.revoked_at is not None:
            return None
        return _token(row)

    def _token(self, token_id: str) -> Token:
        with self._database.reading() as connection:
            return _token(connection.execute(_tokens().where(service_tokens.c.token_id == token_id)).one())


def _digest(token: str) -> str:
    # The token is 32 random bytes: nobody guesses what a plain hash is of, so it need not be a slow one.
    return hashlib.sha256(token.encode()).hexdigest()


def _tokens() -> sa.Select[tuple[str, str, str, str, datetime, str, datetime, str]]:
    revoked = service_token_revocations.c
    return sa.select(service_tokens, revoked.revoked_at, revoked.actor.label("revoked_by")).outerjoin_from(
        service_tokens, service_token_revocations
    )


def _token(row: sa.Row[tuple[str, str, str, str, datetime, str, datetime, str]]) -> Token:
    return Token(
        token_id=row.token_id,
        name=row.name,
        role=cast("Role", row.role),
        added_at=row.added_at,
        added_by=row.actor,
        revoked_at=row.revoked_at,
        revoked_by=row.revoked_by,
    )
