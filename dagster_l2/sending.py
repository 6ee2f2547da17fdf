"""Frames sent to the science side by Globus, on request: the datasets of an input package, whole folders.

Composed from the rooms; no Dagster and no printing. The frames go from the store's collection straight to
the science side's and never come through here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dagster_l2.errors import WrongUse
from dagster_l2.files import only_one, safe_name
from dagster_l2.inputs import Collection, Item, dataset_folders, package_folder, read_note, read_package
from dagster_l2.settings import Settings
from dagster_l2.wiring import open_transfers

NOTE = "transfer/sent.json"


def send(settings: Settings, op_id: str, *, again: bool = False) -> dict[str, Any]:
    """Send the frames of an OP once, or say how the transfer stands.

    Parameters
    ----------
    again
        Start another transfer, where one was started before.

    Returns
    -------
    dict
        ``task_id, status, why, files, bytes``, the two collections, and whether it was started just now.

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
    items = [
        Item(f"{source.path}/{bucket}/{path}/", f"{into}/{path.rpartition('/')[2]}/")
        for bucket, path in dataset_folders(read_package(folder))
    ]
    transfers, note = open_transfers(settings), folder / NOTE
    with only_one(settings.data / "locks" / f"send-{safe_name(op_id)}.lock", f"The sending of {op_id}"):
        if again:
            note.unlink(missing_ok=True)
        is_new = "task_id" not in read_note(note)
        task_id = transfers.start(note, items, source=source, destination=science, label=f"inputs {_now()}")
    ends = {"source": source.uuid, "destination": f"{science.uuid}:{into}"}
    return {**transfers.look(task_id), **ends, "started": is_new}


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H%M}"
