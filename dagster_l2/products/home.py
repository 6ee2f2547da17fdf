"""The home of an inversion's products below the data folder: one process at a time, the manifest last.

Here: the lock and the manifest. How files come there is in ``fetching``, whether they are good in ``verify``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster_l2.base.files import only_one, write_json
from dagster_l2.products.fetching import forget
from dagster_l2.products.layout import VerifiedProducts

MANIFEST_FILE = "manifest.json"
_LOCK_FILE = ".taking.lock"


@contextmanager
def at_home(home: Path) -> Iterator[Path]:
    """Have a home for oneself, for the time of a block; it is made where there is none.

    Raises
    ------
    AlreadyRunning
        Another process or thread brings products to the same home at this moment.
    """
    home.mkdir(parents=True, exist_ok=True)
    with only_one(home / _LOCK_FILE, f"The fetching to {home}"):
        # A kill leaves the temporary files of durable writes; under the lock nobody else can own one.
        for leftover in home.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        yield home


def seal(home: Path, verified: VerifiedProducts) -> Path:
    """Write ``manifest.json`` over verified products: a home with its manifest is complete.

    Returns
    -------
    Path
        The manifest.
    """
    manifest = home / MANIFEST_FILE
    content = verified.as_dict()
    if not _says(manifest, content):
        write_json(manifest, content)
    forget(home)
    return manifest


def _says(manifest: Path, content: object) -> bool:
    try:
        return bool(json.loads(manifest.read_text(encoding="utf-8")) == content)
    except (OSError, ValueError):
        return False
