"""The disk that staged frames may take, and whose frames go first.

What is staged, and when, is in ``staging``; how frames are removed is in ``inputs``.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from dagster_l2.base.files import AlreadyRunning, only_one, safe_name
from dagster_l2.inputs import evict, package_folder, staged_bytes
from dagster_l2.ledger import Present, State
from dagster_l2.settings import Settings

_GB = 10**9


def staging_lock(settings: Settings, op_id: str) -> Path:
    """The lock that whoever writes into the frames of an OP holds."""
    return settings.data / "locks" / f"stage-{safe_name(op_id)}.lock"


def over_quota(settings: Settings, need: int) -> str | None:
    """Why so many more bytes may not be written; None when they may."""
    taken = taken_bytes(settings)
    if need + taken <= settings.stage_quota_gb * _GB:
        return None
    return f"its {need / _GB:.3g} GB would exceed L2_STAGE_QUOTA_GB; {taken / _GB:.3g} GB are taken"


def taken_bytes(settings: Settings) -> int:
    """What the staged frames and cubes of all OPs take."""
    root = settings.data / "inputs"
    return sum(staged_bytes(path) for path in root.iterdir()) if root.is_dir() else 0


def evict_published(settings: Settings, presents: Iterable[Present]) -> list[str]:
    """Remove the staged frames of published OPs; nobody needs them here any more."""
    out = []
    for present in presents:
        if present.state is State.PUBLISHED and evict(package_folder(settings.data, present.op_id)):
            out.append(present.op_id)
    return out


def make_room(settings: Settings, need: int, spare: list[str]) -> list[str]:
    """Remove staged frames until so many bytes fit; whose went.

    Parameters
    ----------
    spare
        The OPs whose frames may go, those first that come last; what was looked at is taken from it.
    """
    out = []
    while spare and over_quota(settings, need) is not None:
        op_id = spare.pop()
        folder = package_folder(settings.data, op_id)
        with suppress(AlreadyRunning), only_one(staging_lock(settings, op_id), f"The staging of {op_id}"):
            if evict(folder):
                out.append(op_id)
    return out
