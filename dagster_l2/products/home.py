"""Verified products come home: copied below the data folder, each sum checked, the manifest last.

Here: the copy, which can be killed and repeated at any point. Whether the products are good is in ``verify``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from dagster_l2.files import only_one, sha256, write_durably, write_json
from dagster_l2.products.layout import ProductFile, ProductsNotTaken, VerifiedProducts

MANIFEST_FILE = "manifest.json"
_LOCK_FILE = ".taking.lock"


def take_home(folder: Path, destination: Path, verified: VerifiedProducts) -> Path:
    """Copy verified products from ``folder`` into ``destination`` and write ``manifest.json`` last.

    What is there intact already is not copied again, so a run after a crash does only the rest. A destination
    with its manifest is complete.

    Returns
    -------
    Path
        The manifest.

    Raises
    ------
    ProductsNotTaken
        A file changed since it was verified, is gone, or cannot be written (a full disk).
    AlreadyRunning
        Another process or thread takes products to the same destination at this moment.
    """
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with only_one(destination / _LOCK_FILE, f"The copy to {destination}"):
            _remove_leftovers(destination)
            for file in verified.files:
                _take_file(folder / file.name, destination / file.name, file)
            manifest = destination / MANIFEST_FILE
            content = verified.as_dict()
            if not _says(manifest, content):
                write_json(manifest, content)
            return manifest
    except OSError as error:
        reason = error.strerror or str(error)
        raise ProductsNotTaken(
            f"The products of {verified.inversion_id} cannot be copied to {destination} ({reason}); "
            "free space or give access, then run again."
        ) from error


def _take_file(source: Path, target: Path, file: ProductFile) -> None:
    if target.is_file() and target.stat().st_size == file.size and sha256(target) == file.sha256:
        return

    def copy(temporary: Path) -> None:
        shutil.copyfile(source, temporary)
        # Checked before the rename: under its own name a file is never other than verified.
        if sha256(temporary) != file.sha256:
            raise ProductsNotTaken(
                f"{file.name} in {source.parent} changed since it was verified; hand over again."
            )

    try:
        write_durably(target, copy)
    except FileNotFoundError:
        raise ProductsNotTaken(f"{file.name} is no longer in {source.parent}; hand over again.") from None


def _remove_leftovers(destination: Path) -> None:
    # A kill leaves the temporary file of `write_durably`; under the lock no other copy can own one.
    for leftover in destination.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _says(manifest: Path, content: object) -> bool:
    try:
        return bool(json.loads(manifest.read_text(encoding="utf-8")) == content)
    except (OSError, ValueError):
        return False
