"""The address and the token of a UDL, apart: what may be shown, and what only its header carries."""

from __future__ import annotations

import base64
import re

import httpx

PATH = "/udl/spaceenvobservation"


def without_secrets(url: str) -> tuple[str, str | None]:
    """The address without name and password, and these as a token; an unusable address is empty."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError, TypeError):
        return "", None
    # A query or fragment has no place before the path, and may be a secret.
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        return "", None
    secret = base64.b64encode(f"{parsed.username}:{parsed.password}".encode()).decode()
    plain = str(parsed.copy_with(username=None, password=None)).rstrip("/").removesuffix(PATH)
    return plain, secret if parsed.userinfo else None


def headers_of(token: str | None) -> httpx.Headers | None:
    """None for a token that cannot be sent: the error of the HTTP library would show it."""
    if not token:
        return httpx.Headers()
    if not re.fullmatch(r"[\x21-\x7e]+( [\x21-\x7e]+)?", token):
        return None
    # Their repr does not show this one.
    return httpx.Headers({"Authorization": token if token.lower().startswith("basic ") else f"Basic {token}"})
