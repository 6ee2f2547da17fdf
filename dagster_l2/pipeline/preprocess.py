"""What is made of an OP's staged frames when somebody asks for it: cubes, one a dataset.

Composed from the rooms; no Dagster and no printing. What a cube is, is in ``inputs``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dagster_l2.base.errors import L2Error
from dagster_l2.base.files import only_one, remove_leftovers, sha256
from dagster_l2.inputs import (
    CUBES_FILE,
    CUBES_FOLDER,
    Cube,
    cube_bytes,
    make_cubes,
    package_folder,
    read_package,
    staged_frames,
    standing,
    write_package,
)
from dagster_l2.ledger import Ledger, Present
from dagster_l2.pipeline.quota import over_quota, staging_lock
from dagster_l2.pipeline.staging import stage
from dagster_l2.pipeline.wiring import open_store
from dagster_l2.settings import Settings


class NotPreprocessed(L2Error):
    """An OP has no staged frames to work on, or no room for what is made of them."""


def ensure_staged(
    settings: Settings,
    ledger: Ledger,
    present: Present,
    *,
    actor: str,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Stage the frames of an OP unless they are here, and give the folder of its input package.

    Raises
    ------
    NotPreprocessed
        When they can't be staged.
    """
    folder = package_folder(settings.data, present.op_id)
    stands = standing(folder)
    if not (stands["staged"] and stands["frames"] == stands["frames_listed"]):
        with open_store(settings) as store:
            report = stage(settings, ledger, store, [present], actor=actor, run_id=None, progress=progress)
        reasons = [reason for _, reason in (*report.failed, *report.left_out)]
        if reasons:
            raise NotPreprocessed(f"The frames of {present.op_id} are not staged: {reasons[0].rstrip('.')}.")
    return folder


def cubes_of(settings: Settings, present: Present, folder: Path) -> list[Cube]:
    """Make the cubes of an OP whose frames are staged; those that are there are left alone.

    Raises
    ------
    NotPreprocessed
        When the disk that inputs may take has no room for them.
    """
    with only_one(staging_lock(settings, present.op_id), f"The staging of {present.op_id}"):
        package, rows = read_package(folder), staged_frames(folder)
        reason = over_quota(settings, cube_bytes(folder, package, rows))
        if reason is not None:
            raise NotPreprocessed(f"The cubes of {present.op_id} are not made: {reason}.")
        for place in (folder, folder / CUBES_FOLDER):
            remove_leftovers(place)
        cubes = make_cubes(folder, package, rows)
        said = {
            "folder": CUBES_FOLDER,
            "files": len(cubes),
            "list": f"{CUBES_FOLDER}/{CUBES_FILE}",
            "sha256": sha256(folder / CUBES_FOLDER / CUBES_FILE),
        }
        write_package(folder, {**package, "cubes": said})
    return cubes
