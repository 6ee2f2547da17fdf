"""From settings to rooms: the open ledger, the store (the local one where none is set), the tables.

Used by the commands and by Dagster alike. No work is done here and nothing is printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_l2.ledger import Ledger
from dagster_l2.settings import Settings
from dagster_l2.store import StoreClient

if TYPE_CHECKING:
    from starlette.applications import Starlette


def open_ledger(settings: Settings) -> Ledger:
    """Open the state database, and bring its tables up to date."""
    settings.data.mkdir(parents=True, exist_ok=True)
    return Ledger.open(settings.state_url, schema=settings.db_schema)


@contextmanager
def open_store(settings: Settings) -> Iterator[StoreClient]:
    """A client of the configured store, or of the local store, which then runs as long as the block."""
    if settings.store_url is not None:
        with _client(settings, settings.store_url) as client:
            yield client
        return
    from dagster_l2.store.server import LocalStoreServer

    with LocalStoreServer(local_store_app(settings)) as server, _client(settings, server.url) as client:
        yield client


def local_store_app(
    settings: Settings, records: Path | None = None, *, allow_faults: bool = False
) -> Starlette:
    """The local store over the configured dumps, or over generated records."""
    from dagster_l2.store.server import RecordSet, generate, store_app

    source = records or settings.store_records
    if source is not None:
        record_set = RecordSet.load([source.expanduser()])
    else:
        record_set = generate(settings.demo_observing_programs, seed=1)
    token = settings.store_token.get_secret_value() if settings.store_token else None
    return store_app(
        record_set,
        token=token,
        inversions_file=settings.data / "store" / "inversions.sqlite",
        allow_faults=allow_faults,
    )


def store_name(settings: Settings) -> str:
    """The store as people should see it named."""
    if settings.store_url:
        return settings.store_url
    return (
        f"local store over {settings.store_records}" if settings.store_records else "local store, generated"
    )


def _client(settings: Settings, url: str) -> StoreClient:
    token = settings.store_token.get_secret_value() if settings.store_token else None
    return StoreClient(url, token=token, kind=settings.store_kind, timeout_s=settings.store_timeout_s)
