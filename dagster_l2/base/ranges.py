"""What an HTTP answer says of the part of a file that it brings (RFC 9110), for those that go on with one.

Headers are read here; who asks, and what is kept of a file, is in the rooms.
"""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)\Z")
_STRONG = re.compile(r'"[\x21\x23-\x7e]*"\Z')


def part_given(content_range: str | None) -> tuple[int, int] | None:
    """Where a part begins, and the bytes of the whole; None when ``Content-Range`` says not both (14.4)."""
    found = _RANGE.match(content_range or "")
    return (int(found[1]), int(found[2])) if found else None


def strong_tag(etag: str | None) -> str | None:
    """The entity tag, if it is a strong one: a weak one may stand for other bytes (13.1.5)."""
    tag = (etag or "").strip()
    return tag if _STRONG.match(tag) else None
