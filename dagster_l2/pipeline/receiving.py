"""Products come home: fetched from where the ready event says, recorded, verified, sealed.

Composed from the rooms for one science-ready event; no Dagster, no printing. It can be killed anywhere: the
next run goes on. How files are fetched and what is checked is in ``products``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.base.files import safe_name, sha256, write_durably
from dagster_l2.inputs import (
    Collection,
    Item,
    TransferFailed,
    Transfers,
    package_details,
    package_folder,
    read_package,
)
from dagster_l2.ledger import Ledger, ScienceEvent
from dagster_l2.products import (
    PRODUCT_FILES,
    QUICKLOOK_FILE,
    Declared,
    FolderPlace,
    HttpPlace,
    Limits,
    Place,
    ProductsRefused,
    ProductsUnreachable,
    check_address,
    fetch,
    forget,
    quicklook,
    seal,
    verify,
)
from dagster_l2.products import at_home as at_home_alone

FETCHED = "fetched"
_LANDING = "globus/products"
_FIRST_LOOK_S = 1.0


class StillComing(L2Error):
    """Products are on their way by themselves; the event waits, and the next run looks again."""

    transient = True


@dataclass(frozen=True)
class Places:
    """Where products may come from.

    Parameters
    ----------
    root
        What a relative path is below.
    hosts
        Those that are asked over HTTP; empty: any.
    timeout_s
        Seconds that one read may stall.
    open_transfers
        Globus' transfer service; None: nothing comes by Globus.
    here
        What Globus calls the data folder of this machine.
    patience_s
        Seconds that a run waits for Globus; then the event waits for the next.
    may_be_synthetic
        Whether made-up products are taken.
    """

    root: Path | None = None
    hosts: frozenset[str] = frozenset()
    timeout_s: float = 60.0
    limits: Limits = field(default_factory=Limits)
    open_transfers: Callable[[], Transfers] | None = None
    here: Collection | None = None
    patience_s: float = 60.0
    may_be_synthetic: bool = False


def receive_products(
    ledger: Ledger,
    data: Path,
    event: ScienceEvent,
    places: Places,
    *,
    actor: str,
    run_id: str | None,
) -> dict[str, Any]:
    """Bring the products of an event home and verify them there; what goes into the details of Inverted.

    Raises
    ------
    ProductsRefused
        The place does not give them, or they are not right: it takes another hand-over.
    ProductsUnreachable, StillComing
        Another run may get them.
    AlreadyRunning
        Another one is at it.
    """
    package = read_package(package_folder(data, event.op_id))
    with at_home_alone(home_of(data, event.inversion_id)) as home:
        sums = _fetched(ledger, data, home, event, places, actor=actor, run_id=run_id)
        _check_sums(event, sums)
        verified = verify(
            home,
            op_id=event.op_id,
            inversion_id=event.inversion_id,
            dataset_ids=event.dataset_ids,
            declared=_declared(package, event.dataset_ids),
            may_be_synthetic=places.may_be_synthetic,
        )
        if {file.name: file.sha256 for file in verified.files} != sums:
            forget(home)
            raise ProductsUnreachable(
                f"The files in {home} changed since they were fetched; they are fetched anew."
            )
        seal(home, verified)
    plain = verified.as_dict()
    details = {name: plain[name] for name in ("synthetic", "findings", "lines", "statistics")}
    return {**package_details(package, event.dataset_ids), "products": plain["files"], **details}


def home_of(data: Path, inversion_id: str) -> Path:
    """Where the products of an inversion are at home."""
    return data / "products" / safe_name(inversion_id)


def picture_of(data: Path, inversion_id: str) -> bytes | None:
    """The picture of an inversion, drawn unless it lies at home already; None where nothing can be drawn."""
    path = home_of(data, inversion_id) / QUICKLOOK_FILE
    try:
        if not path.is_file():
            png = quicklook(path.parent)

            def write(temporary: Path) -> None:
                temporary.write_bytes(png)

            write_durably(path, write)
        return path.read_bytes()
    except (ProductsRefused, OSError):
        return None


def _fetched(
    ledger: Ledger,
    data: Path,
    home: Path,
    event: ScienceEvent,
    places: Places,
    *,
    actor: str,
    run_id: str | None,
) -> dict[str, str]:
    """The sums of the files at home; they are recorded before anything else looks at the files."""
    record = ledger.steps_of(event.event_id).get(FETCHED)
    recorded = {file["name"]: file["sha256"] for file in record.details["files"]} if record else None
    if recorded is not None and all(_has_sum(home / name, recorded[name]) for name in PRODUCT_FILES):
        return recorded
    with _open_place(data, event, places) as place:
        files = fetch(place, home, places.limits)
        sums = {file.name: file.sha256 for file in files}
        if recorded is not None and sums != recorded:
            raise ProductsRefused(
                ["The products changed since they were fetched, and the copy here is lost; hand over again"]
            )
        details = {"products": event.products, "files": [asdict(file) for file in files]}
        ledger.record_step(
            event.op_id,
            inversion_id=event.inversion_id,
            subject=event.event_id,
            step=FETCHED,
            details=details,
            actor=actor,
            run_id=run_id,
        )
    return sums


def _check_sums(event: ScienceEvent, found: Mapping[str, str]) -> None:
    """Refuse files that are not the ones whose sums were said with the ready event."""
    said = event.details.get("checksums")
    if said is None:
        return
    other = sorted(name for name, digest in found.items() if str(said.get(name, "")).lower() != digest)
    if other:
        raise ProductsRefused([f"{name} is not the file whose SHA-256 was handed over" for name in other])


def _has_sum(path: Path, wanted: str) -> bool:
    return path.is_file() and sha256(path) == wanted


@contextmanager
def _open_place(data: Path, event: ScienceEvent, places: Places) -> Iterator[Place]:
    try:
        address = urlsplit(check_address(event.products))
    except WrongUse as error:
        raise ProductsRefused([str(error).rstrip(".")]) from None
    if address.scheme in ("http", "https"):
        place = HttpPlace(event.products, hosts=places.hosts, timeout_s=places.timeout_s)
        try:
            yield place
        finally:
            place.close()
    elif address.scheme == "globus":
        yield from _through_globus(data, event, places, Collection(address.netloc, unquote(address.path)))
    elif address.scheme == "file":
        yield FolderPlace(Path(unquote(address.path)))
    elif (folder := Path(event.products)).is_absolute():
        yield FolderPlace(folder)
    elif places.root is None:
        raise ProductsRefused([f"{event.products!r} is no absolute path, and L2_PRODUCTS_ROOT is not set"])
    else:
        yield FolderPlace(places.root / folder, root=places.root)


def _through_globus(data: Path, event: ScienceEvent, places: Places, source: Collection) -> Iterator[Place]:
    """Let Globus bring the files beside the home; they are removed when they have come and are recorded."""
    if places.open_transfers is None or places.here is None:
        raise WrongUse("Products by Globus need L2_GLOBUS_TOKEN and L2_LOCAL_COLLECTION; set both.")
    transfers, below = places.open_transfers(), f"{_LANDING}/{safe_name(event.event_id)}"
    landing = data / below
    note = landing.with_name(f"{landing.name}.json")
    items = [
        Item(f"{source.path.rstrip('/')}/{name}", f"{places.here.path}/{below}/{name}")
        for name in PRODUCT_FILES
    ]
    try:
        task = transfers.start(note, items, source=source, destination=places.here, label="level-2 products")
    except TransferFailed as error:
        if not error.transient:
            note.unlink(missing_ok=True)  # another try is another transfer
        raise
    try:
        found = _awaited(transfers, task, places.patience_s)
        if found is None:
            raise StillComing(f"Globus task {task} still brings the products of {event.inversion_id}.")
        if found["status"] != "SUCCEEDED":
            why = found["why"] or "no reason given"
            raise ProductsRefused([f"Globus task {task} is {found['status']} ({why})"])
        yield FolderPlace(landing)
    except TransferFailed as error:
        if not error.transient:
            note.unlink(missing_ok=True)  # Globus no longer knows the task
        raise
    except ProductsRefused:
        # Nobody comes back to this event: the next hand-over is another, with a transfer of its own.
        _clear(landing, note)
        raise
    _clear(landing, note)


def _awaited(transfers: Transfers, task: str, patience_s: float) -> dict[str, Any] | None:
    """How a task ended; None when it has not within so many seconds."""
    deadline, wait_s = time.monotonic() + patience_s, _FIRST_LOOK_S
    while (found := transfers.look(task))["status"] == "ACTIVE":
        if time.monotonic() + wait_s > deadline:
            return None
        time.sleep(wait_s)
        wait_s *= 1.5
    return found


def _clear(landing: Path, note: Path) -> None:
    shutil.rmtree(landing, ignore_errors=True)
    note.unlink(missing_ok=True)


def _declared(package: Mapping[str, Any], dataset_ids: Iterable[str]) -> Declared:
    """What an input package says of the datasets that were inverted; estimated lines are no measure."""
    wanted = set(dataset_ids)
    rows = [row for group in package["groups"] for row in group["datasets"] if row["dataset_id"] in wanted]
    edges = [(row.get("wavelength_min_nm"), row.get("wavelength_max_nm")) for row in rows]
    is_estimated = any(row.get("lines_estimated") for row in rows)
    lines = {line for row in rows for line in row.get("spectral_lines") or ()}
    counts = [int(row.get("frame_count") or 0) // len(row.get("stokes") or "IQUV") for row in rows]
    return Declared(
        lines=() if is_estimated else tuple(sorted(lines)),
        ranges_nm=tuple((low, high) for low, high in edges if low and high) if all(map(all, edges)) else (),
        steps=tuple(sorted({count for count in counts if count})),
    )
