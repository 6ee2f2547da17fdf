"""What a setting may look like: ports, addresses, folders, collections; and names that are no setting.

No setting is named here but for the variables of others with the same prefix; those are in ``settings``.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

PREFIX = "L2_"

# Of the scripts in contrib/, and what the pipeline hands to dbt.
_CONTRIB = ("L2_URL", "L2_TOKEN", "L2_TOKEN_FILE", "L2_STATE")
_DBT = ("L2_WAREHOUSE", "L2_MANIFEST", "L2_STORE_NAME", "L2_IS_DEMO")
OTHERS = frozenset((*_CONTRIB, *_DBT))
"""Variables with the same prefix that are no settings."""

_TESTS = "L2_TEST_"


def _folder(value: Path) -> Path:
    try:
        value.expanduser()
    except RuntimeError:
        raise ValueError(f"there is no user {value.parts[0]}") from None
    return value


def _address(value: str) -> str:
    if not re.match(r"https?://[^/]", value):
        raise ValueError("write it like https://host or http://host:port")
    return value


def _collection(value: str) -> str:
    if not re.fullmatch(r"[^:/]+:/.*", value):
        raise ValueError("write it as <uuid>:/path")
    return value


def _memory(value: str) -> str:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)? ?[KMGT]i?B", value):
        raise ValueError("write it like 4GB")
    return value


def _schema(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", value):
        raise ValueError("write letters, digits and underscores only")
    return value


Port = Annotated[int, Field(ge=0, le=65535)]
Folder = Annotated[Path, AfterValidator(_folder)]
HttpAddress = Annotated[str, AfterValidator(_address)]
GlobusCollection = Annotated[str, AfterValidator(_collection)]
Memory = Annotated[str, AfterValidator(_memory)]
SchemaName = Annotated[str, AfterValidator(_schema)]


def names_of_nothing(settings: Iterable[str]) -> Iterator[str]:
    """A sentence for each variable of the environment that looks like a setting and is none.

    A mistyped name would otherwise be passed over, and its setting have the embedded default.
    """
    known = {PREFIX + name.upper() for name in settings}
    for name in sorted(os.environ):
        if name.upper() in known or name in OTHERS or not name.startswith(PREFIX) or name.startswith(_TESTS):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        yield f"{name} is no setting" + (f"; did you mean {close[0]}?" if close else ".")


@cache
def warn_of_other_names(settings: frozenset[str]) -> None:
    """Log those sentences as warnings, once in a process."""
    for sentence in names_of_nothing(settings):
        logging.getLogger(__name__).warning(sentence)
