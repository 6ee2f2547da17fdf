"""The level-2 files that users open: one FITS file per step and one ASDF file, in the observatory's layout.

Here: their layout, writing and checking. Not here: the products they are made of (the room around), and
where they are published.
"""

from __future__ import annotations

from dagster_l2.products.level2.layout import (
    LEVEL2_MANIFEST,
    LEVEL2_QUANTITIES,
    Level2Damaged,
    Level2Files,
    Level2Quantity,
    Level2Refused,
    Level2Request,
    object_folder,
)
from dagster_l2.products.level2.write import check_level2, read_level2, write_level2

__all__ = [
    "LEVEL2_MANIFEST",
    "LEVEL2_QUANTITIES",
    "Level2Damaged",
    "Level2Files",
    "Level2Quantity",
    "Level2Refused",
    "Level2Request",
    "check_level2",
    "object_folder",
    "read_level2",
    "write_level2",
]
