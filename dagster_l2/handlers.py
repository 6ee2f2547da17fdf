"""From the parameters of a job to its source: what the definitions in ``jobs/`` name as their handler.

It runs in every process that works on a job. Secrets come from the settings of that process, so none lies in
a batch file. The module's name does, so it keeps its place, and a job of another version can be gone on with.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_l2.base.errors import WrongUse
from dagster_l2.batch import DatabaseRates, Limiter, RateSettings, open_engine, rate_key
from dagster_l2.inputs import FrameStaging, read_listing
from dagster_l2.pipeline.wiring import open_objects, open_store, store_name
from dagster_l2.settings import Settings, load_settings
from dagster_l2.sources import (
    Archive,
    Findings,
    MetadataStore,
    Observed,
    Question,
    Reach,
    ScanReport,
    UdlClient,
    without_secrets,
)

if TYPE_CHECKING:
    from dagster_l2.store.server import LocalStoreServer


def reach(
    *,
    url: str | None,
    sensor: str | None,
    descriptor: str,
    settled_after_days: float,
    satellites: int,
    cadence_s: int,
    rate: Mapping[str, float],
) -> ReachDownload:
    """REACH from the UDL at ``url``, or from the local store where it is None.

    Raises
    ------
    WrongUse
        When the settings of this process name another UDL, whose token is not to be sent to this one.
    """
    settings = load_settings()
    if url != udl_address(settings):
        raise WrongUse(
            f"The job is about the REACH of {url or 'the local store'}, and L2_UDL_URL names"
            f" {udl_address(settings) or 'none'}; set it as it was."
        )
    engine = open_engine(settings.state_url, settings.db_schema)
    bounds = RateSettings(
        initial=rate["initial"],
        increase=rate["increase"],
        decrease=rate["decrease"],
        minimum=rate["min"],
        maximum=rate["max"],
    )
    limiter = Limiter(DatabaseRates(engine, rate_key(url or "", "reach")), bounds)
    archive: UdlClient | LocalUdl
    if settings.udl_url is None:
        archive = LocalUdl(limiter, satellites=satellites, cadence_s=cadence_s)
    else:
        token = settings.udl_token.get_secret_value() if settings.udl_token else None
        archive = UdlClient(settings.udl_url, token=token, pace=limiter)

    def close() -> None:
        limiter.close()
        archive.close()
        engine.dispose()

    return ReachDownload(
        archive,
        close,
        sensor=sensor,
        descriptor=descriptor,
        settled_after_days=settled_after_days,
        satellites=satellites,
        cadence_s=cadence_s,
    )


def udl_address(settings: Settings) -> str | None:
    """The configured UDL as it may be shown and written; None for the local store.

    Raises
    ------
    WrongUse
        When it can't be an address.
    """
    if settings.udl_url is None:
        return None
    url, _secret = without_secrets(settings.udl_url)
    if not url:
        raise WrongUse("L2_UDL_URL is no address of a UDL; set it to one like https://host.")
    return url


def store_query(settings: Settings) -> dict[str, str]:
    """How the metadata store is named in the log of attempts and in a job: no secrets."""
    name = (without_secrets(settings.store_url)[0] if settings.store_url else "") or store_name(settings)
    return {"store": name, "kind": settings.store_kind}


def metadata_store(
    *, store: str, kind: str, lake: str, job_id: str, scanned_at: str, total: int
) -> StoreSource:
    """The metadata store, for a worker of a scan in a process of its own.

    Raises
    ------
    WrongUse
        When the settings of this process name another store.
    """
    settings = load_settings()
    if store_query(settings) != {"store": store, "kind": kind}:
        raise WrongUse(
            f"The job is about {store}, and the settings name another store; set them as they were."
        )
    report = ScanReport(job_id, datetime.fromisoformat(scanned_at), total=total)
    return StoreSource(settings, Findings(Path(lake), report))


def frames(*, op_id: str, listing: str, folder: str) -> FrameSource:
    """The frames of one OP, from where the settings of this process say that they lie."""
    return FrameSource(load_settings(), op_id, Path(listing), Path(folder))


class FrameSource(FrameStaging):
    """The frames of one OP, with all that was opened for them; a job closes it when it ends."""

    def __init__(self, settings: Settings, op_id: str, listing: Path, folder: Path) -> None:
        self._opened = ExitStack()
        super().__init__(
            op_id, read_listing(listing), folder, self._opened.enter_context(open_objects(settings))
        )

    def close(self) -> None:
        """Close what was opened."""
        self._opened.close()


class StoreSource(MetadataStore):
    """The metadata store, with all that was opened for it; a job closes it when it ends."""

    def __init__(self, settings: Settings, findings: Findings) -> None:
        self._opened = ExitStack()
        client = self._opened.enter_context(open_store(settings))
        report = findings.report
        super().__init__(
            client,
            query=store_query(settings),
            differs=findings.differs,
            stamp=lambda: (report.scanned_at, report.job_id),
        )

    def close(self) -> None:
        """Close the client."""
        self._opened.close()


class ReachDownload(Reach):
    """REACH, with all that was opened for it; a job closes it when it ends."""

    def __init__(self, archive: Archive, close: Any, **options: Any) -> None:
        super().__init__(archive, **options)
        self.close = close


class LocalUdl:
    """The UDL that the local store plays, in this process; it is started when it is first asked.

    What a sensor saw follows from its name and the time, so every process is told the same.
    """

    url = "local store"

    def __init__(self, pace: Limiter, *, satellites: int, cadence_s: int) -> None:
        self._pace, self._satellites, self._cadence_s = pace, satellites, cadence_s
        self._lock = threading.Lock()
        self._server: LocalStoreServer | None = None
        self._client: UdlClient | None = None

    def count(self, question: Question) -> int:
        """See `UdlClient`."""
        return self._asked().count(question)

    def observations(self, question: Question, *, is_counted: bool = False) -> Observed:
        """See `UdlClient`."""
        return self._asked().observations(question, is_counted=is_counted)

    def close(self) -> None:
        """Stop serving."""
        with self._lock:
            if self._client is not None and self._server is not None:
                self._client.close()
                self._server.stop()

    def _asked(self) -> UdlClient:
        with self._lock:
            if self._client is None:
                from dagster_l2.pipeline.wiring import local_udl_app
                from dagster_l2.store.server import LocalStoreServer

                self._server = LocalStoreServer(local_udl_app(self._satellites, self._cadence_s))
                self._server.__enter__()
                self._client = UdlClient(self._server.url, pace=self._pace)
            return self._client
