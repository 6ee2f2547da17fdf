"""Input packages sent to the science side by Globus, on request: whole folders of datasets, and the manifest.

Composed from the rooms; no Dagster and no printing. The frames go from the store's collection straight to
the science side's and never come through here; the manifest and the transfer lists go from here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dagster_l2.base.errors import WrongUse
from dagster_l2.base.files import only_one, safe_name
from dagster_l2.inputs import (
    PACKAGE_FILE,
    Collection,
    Item,
    Transfers,
    dataset_folders,
    package_folder,
    read_note,
    read_package,
)
from dagster_l2.pipeline.wiring import open_transfers
from dagster_l2.settings import Settings

NOTE = "transfer/sent.json"
MANIFEST_NOTE = "transfer/manifest-sent.json"
_STAYS = "Only the frames are sent: set L2_LOCAL_COLLECTION, and the manifest goes along."


def send(settings: Settings, op_id: str, *, again: bool = False) -> dict[str, Any]:
    """Send the input package of an OP once, or say how the transfers stand.

    Parameters
    ----------
    again
        Start other transfers, where some were started before.

    Returns
    -------
    dict
        ``task_id, status, why, files, bytes`` of the frames, the two collections, and whether it was started
        just now; ``manifest``: the same of the manifest and the transfer lists, or why they stay here.

    Raises
    ------
    WrongUse
        When a collection or the token is not set.
    TransferFailed
        When Globus does not take it.
    """
    if settings.store_collection is None or settings.science_collection is None:
        raise WrongUse("Sending needs L2_STORE_COLLECTION and L2_SCIENCE_COLLECTION; set both.")
    source = Collection.parse(settings.store_collection)
    science = Collection.parse(settings.science_collection)
    folder = package_folder(settings.data, op_id)
    into = f"{science.path}/{safe_name(op_id)}"
    frames = [
        Item(f"{source.path}/{bucket}/{path}/", f"{into}/{path.rpartition('/')[2]}/")
        for bucket, path in dataset_folders(read_package(folder))
    ]
    transfers = open_transfers(settings)
    with only_one(settings.data / "locks" / f"send-{safe_name(op_id)}.lock", f"The sending of {op_id}"):
        out = _once(transfers, folder / NOTE, frames, (source, science), again=again)
        manifest: Any = _STAYS
        if settings.local_collection is not None:
            here = Collection.parse(settings.local_collection)
            items = _own_files(folder, settings.data, here, into)
            manifest = _once(transfers, folder / MANIFEST_NOTE, items, (here, science), again=again)
    ends = {"source": source.uuid, "destination": f"{science.uuid}:{into}"}
    return {**out, **ends, "manifest": manifest}


def _once(
    transfers: Transfers, note: Path, items: list[Item], ends: tuple[Collection, Collection], *, again: bool
) -> dict[str, Any]:
    if again:
        note.unlink(missing_ok=True)
    is_new = "task_id" not in read_note(note)
    source, destination = ends
    task_id = transfers.start(note, items, source=source, destination=destination, label=f"inputs {_now()}")
    return {**transfers.look(task_id), "started": is_new}


def _own_files(folder: Path, data: Path, here: Collection, into: str) -> list[Item]:
    """What the package says of its datasets; frames staged here are not sent a second time."""
    names = [PACKAGE_FILE, *(f"transfer/{name}" for name in ("globus.txt", "rsync.txt"))]
    start = f"{here.path}/{folder.relative_to(data).as_posix()}"
    return [Item(f"{start}/{name}", f"{into}/{name}") for name in names if (folder / name).is_file()]


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H%M}"
