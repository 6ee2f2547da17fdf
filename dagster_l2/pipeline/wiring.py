"""From settings to rooms: the open ledger, the store (the local one where none is set), the tables.

Used by the commands and by Dagster alike. No work is done here and nothing is printed. Rooms that the ledger
alone does not need are loaded by whoever opens them: `l2 queue` waits for neither polars nor an HTTP client.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.ledger import Ledger
from dagster_l2.settings import Settings

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from dagster_l2.batch import Limiter
    from dagster_l2.inputs import Objects, Transfers
    from dagster_l2.pipeline.receiving import Places
    from dagster_l2.publishing import Bus
    from dagster_l2.store import StoreClient
    from dagster_l2.store.server import ReachFleet


class LedgerLost(L2Error):
    """The ledger is empty, and bronze holds the history of one."""


def open_ledger(settings: Settings, *, importing: bool = False) -> Ledger:
    """Open the state database, and bring its tables up to date.

    Parameters
    ----------
    importing
        Whether this is the import of a ledger, which may find an empty one.

    Raises
    ------
    LedgerLost
        When a new ledger would begin beside what bronze has of another: the next pass would mix the two.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    ledger = Ledger.open(settings.state_url, schema=settings.db_schema)
    exported = settings.lake / "bronze" / "transitions"
    if not importing and exported.is_dir() and not any(ledger.latest_ids()) and _has_rows(exported):
        ledger.close()
        place = "L2_DATABASE_URL" if settings.database_url else settings.data / "l2.sqlite"
        raise LedgerLost(
            f"The ledger in {place} is empty, and {exported} holds the history of one: name the right one,"
            f" take a dump with `l2 ledger import`, or move {settings.data} away and take a backup back with"
            " `l2 restore`."
        )
    return ledger


def _has_rows(table: Path) -> bool:
    from dagster_l2.lake import committed_files, read_manifest

    manifests = (read_manifest(path) for path in committed_files(table))
    return any(manifest is not None and manifest.row_count for manifest in manifests)


@contextmanager
def open_store(settings: Settings) -> Iterator[StoreClient]:
    """A client of the configured store, or of the local store, which then runs as long as the block."""
    if settings.store_url is not None:
        with (
            _pace(settings, settings.store_url) as pace,
            _client(settings, settings.store_url, pace) as client,
        ):
            yield client
        return
    from dagster_l2.store.server import LocalStoreServer

    with LocalStoreServer(local_store_app(settings)) as server, _client(settings, server.url) as client:
        yield client


def local_store_app(
    settings: Settings, records: Path | None = None, *, allow_faults: bool = False
) -> Starlette:
    """The local store over the configured dumps, or over generated records."""
    from dagster_l2.store.server import RecordSet, can_make_frames, generate, store_app

    source = records or settings.store_records
    has_frames = source is None and can_make_frames()
    if source is not None:
        record_set = RecordSet.load([source.expanduser()])
    else:
        record_set = generate(settings.demo_observing_programs, seed=1, small_frames=True)
    token = settings.store_token.get_secret_value() if settings.store_token else None
    return store_app(
        record_set,
        token=token,
        inversions_file=settings.data / "store" / "inversions.sqlite",
        allow_faults=allow_faults,
        frames_folder=settings.data / "store" / "objects" if has_frames else None,
        reach=_fleet(settings.reach_satellites, settings.reach_cadence_s),
        udl_token=settings.udl_token.get_secret_value() if settings.udl_token else None,
    )


def local_udl_app(satellites: int, cadence_s: int) -> Starlette:
    """The part of the local store that plays the UDL, alone."""
    from dagster_l2.store.server import udl_app

    return udl_app(_fleet(satellites, cadence_s))


def _fleet(satellites: int, cadence_s: int) -> ReachFleet:
    from dagster_l2.store.server import ReachFleet

    return ReachFleet(satellites=satellites, cadence_s=cadence_s, now=datetime.now(UTC))


def has_objects(settings: Settings) -> bool:
    """Whether it is known where level-1 frames lie."""
    return settings.frames_from is not None or settings.is_embedded_default


@contextmanager
def open_objects(settings: Settings, store: StoreClient | None = None) -> Iterator[Objects]:
    """Where level-1 frames lie, for the time of a block.

    Parameters
    ----------
    store
        A client of the local store that runs already.

    Raises
    ------
    WrongUse
        When nobody said where.
    """
    from dagster_l2.inputs import FolderObjects, HttpObjects

    place = settings.frames_from
    if place == "globus":
        yield _globus_objects(settings)
        return
    if place is not None and place.startswith("s3://"):
        yield _s3_objects(settings)
        return
    if place is not None and not place.startswith(("http://", "https://")):
        yield FolderObjects(Path(place).expanduser())
        return
    with ExitStack() as stack:
        if place is None:
            if not settings.is_embedded_default:
                raise WrongUse("Nobody said where the level-1 frames lie; set L2_FRAMES_FROM.")
            place = objects_url(store or stack.enter_context(open_store(settings)))
        token = settings.store_token.get_secret_value() if settings.store_token else None
        headers = {"Authorization": token} if token and settings.frames_from is None else {}
        objects = HttpObjects(place, headers=headers, timeout_s=settings.store_timeout_s)
        stack.callback(objects.close)
        yield objects


def _globus_objects(settings: Settings) -> Objects:
    from dagster_l2.inputs import Collection, GlobusObjects

    source, here = settings.store_collection, settings.local_collection
    if source is None or here is None:
        raise WrongUse("Frames through Globus need L2_STORE_COLLECTION and L2_LOCAL_COLLECTION; set both.")
    ends = Collection.parse(source), Collection.parse(here)
    return GlobusObjects(open_transfers(settings), *ends, settings.data)


def open_transfers(settings: Settings) -> Transfers:
    """Globus' transfer service.

    Raises
    ------
    WrongUse
        Without a token, or without the library.
    """
    from dagster_l2.inputs import Transfers

    if settings.globus_token is None:
        raise WrongUse("Globus asks who you are; set L2_GLOBUS_TOKEN.")
    return Transfers(settings.globus_token.get_secret_value(), url=settings.globus_url)


def _s3_objects(settings: Settings) -> Objects:
    from dagster_l2.inputs import S3Objects

    if settings.frames_from != "s3://":
        raise WrongUse("Each frame names its bucket: set L2_FRAMES_FROM=s3:// alone, and L2_S3_ENDPOINT.")
    secret = settings.s3_secret.get_secret_value() if settings.s3_secret else None
    return S3Objects(
        endpoint=settings.s3_endpoint, region=settings.s3_region, key=settings.s3_key, secret=secret
    )


def objects_url(store: StoreClient) -> str:
    """The object space of a local store."""
    return f"{store.url}/objects"


def places_of(settings: Settings) -> Places:
    """Where products may come from."""
    from dagster_l2.inputs import Collection
    from dagster_l2.pipeline.receiving import Places
    from dagster_l2.products import Limits

    here, root = settings.local_collection, settings.products_root
    return Places(
        root=root.expanduser().absolute() if root else None,
        hosts=frozenset(name.strip() for name in settings.products_hosts.split(",") if name.strip()),
        timeout_s=settings.store_timeout_s,
        limits=Limits(most_bytes=int(settings.products_most_gb * 1e9)),
        open_transfers=(lambda: open_transfers(settings)) if settings.globus_token else None,
        here=Collection.parse(here) if here else None,
        may_be_synthetic=settings.takes_synthetic,
    )


def open_bus(settings: Settings) -> Bus:
    """Who carries catalog messages."""
    from dagster_l2.publishing import Outbox, RabbitBus

    if settings.bus_url is not None:
        return RabbitBus(settings.bus_url.get_secret_value(), settings.bus_exchange)
    return Outbox(settings.data / "published" / "outbox")


def store_name(settings: Settings) -> str:
    """The store as people should see it named."""
    if settings.store_url:
        return settings.store_url
    return (
        f"local store over {settings.store_records}" if settings.store_records else "local store, generated"
    )


def _client(settings: Settings, url: str, pace: Limiter | None = None) -> StoreClient:
    from dagster_l2.store import StoreClient

    token = settings.store_token.get_secret_value() if settings.store_token else None
    return StoreClient(
        url, token=token, kind=settings.store_kind, timeout_s=settings.store_timeout_s, pace=pace
    )


@contextmanager
def _pace(settings: Settings, url: str) -> Iterator[Limiter | None]:
    """The rate that all processes share; None where there is no limit."""
    most = settings.store_rate_max
    if most is None:
        yield None
        return
    from dagster_l2.batch import DatabaseRates, Limiter, RateSettings, open_engine, rate_key

    open_ledger(settings).close()
    engine = open_engine(settings.state_url, settings.db_schema)
    rates = RateSettings(initial=most, minimum=min(1 / 60, most), maximum=most)
    try:
        with Limiter(DatabaseRates(engine, rate_key(url, "store")), rates) as limiter:
            yield limiter
    finally:
        engine.dispose()
