"""The types of columns that revisions make, for the database at hand: ``moment`` and ``number``.

They never change: a revision makes today what it made when it was new.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import sqlalchemy as sa
from alembic import op

Kind: TypeAlias = sa.types.TypeEngine[Any]


def moment() -> Kind:
    """A time in UTC."""
    return sa.Text() if _is_sqlite() else sa.DateTime(timezone=True)


def number() -> Kind:
    """A number that the database gives."""
    return sa.Integer() if _is_sqlite() else sa.BigInteger()


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"
