"""The token of the UDL: sent as it is, and in no log, message or traceback of its client."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from dagster_l2.base.errors import L2Error
from dagster_l2.sources.udl import UdlClient
from dagster_l2.sources.udl_errors import UdlRefused
from tests.sources.reach_kit import TOKEN, FreePace, UdlWorld, question


@pytest.mark.parametrize("token", [TOKEN, f"Basic {TOKEN}"])
def test_the_token_is_sent_as_it_is(udl: UdlWorld, token: str) -> None:
    with udl.client(token=token) as client:
        assert client.count(question()) == 20


def test_a_name_and_password_in_the_address_are_the_token_and_are_not_shown(udl: UdlWorld) -> None:
    url = udl.url.replace("://", "://secret-user:secret-word@")
    with udl.client(url, token=None) as client:
        assert client.count(question()) == 20
        assert client.url == udl.url
        assert "secret" not in repr(client)


def fail(udl: UdlWorld, fault: dict[str, Any]) -> Callable[[], Any]:
    def run() -> None:
        udl.faults.add(**fault)
        with udl.client(budget_s=0.05, timeout_s=0.1, patience_s=0.05) as client:
            client.observations(question())

    return run


@pytest.mark.parametrize("fault", [
    {"kind": "status", "status": 400, "body": f"no such user: Basic {TOKEN}"},
    {"kind": "status", "status": 401, "body": TOKEN},
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 302, "headers": {"Location": "/login"}},
    {"kind": "status", "status": 500},
    {"kind": "html"},
    {"kind": "cut", "chunked": True},
    {"kind": "slow", "seconds": 0.3},
    {"kind": "wrong_count"},
], ids=str)  # fmt: skip
def test_the_token_is_in_no_log_no_message_and_no_traceback(udl: UdlWorld, fault: dict[str, Any]) -> None:
    shown = said_by(fail(udl, fault))
    assert udl.url in shown
    assert TOKEN not in shown


@pytest.mark.parametrize(("url", "token"), [
    ("http://127.0.0.1:9", "secret\nword"),
    ("http://127.0.0.1:9", "secret-wörd"),
    ("http://127.0.0.1:9", " secret "),
    ("http://u:secret@127.0.0.1:port", None),
    ("secret-word@host", None),
    ("https://127.0.0.1:9/?token=secret", None),
    ("", "secret"),
])  # fmt: skip
def test_what_cannot_be_sent_is_refused_without_showing_it(url: str, token: str | None) -> None:
    with pytest.raises(UdlRefused, match="set L2_UDL_") as refused:
        UdlClient(url, token=token, pace=FreePace())
    assert refused.value.exit_code == 2
    ours = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
    ours.stack[:] = [frame for frame in ours.stack if "dagster_l2" in frame.filename]
    assert "secret" not in "".join(ours.format())


def said_by(run: Callable[[], Any]) -> str:
    """All that a person could see of a failing call: every log line and the traceback with its variables."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        run()
    except L2Error as error:
        # The caller's own frame is not ours to keep silent; everything below it is.
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        shown.stack[:] = [frame for frame in shown.stack if not frame.filename.endswith("test_udl_token.py")]
        stream.write("".join(shown.format()))
        stream.write(repr(error))
    else:
        pytest.fail("nothing failed")
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert "httpcore" not in logging.root.manager.loggerDict or "send_request_headers" in stream.getvalue()
    return stream.getvalue()
