"""The level-2 files of an OP, as people read of them."""

from __future__ import annotations

from typing import Any


def level2_pairs(level2: dict[str, Any]) -> dict[str, Any]:
    """The same in short, for people."""
    names = level2["files"]
    return {
        "folder": level2["folder"],
        "opened by dkist": level2["asdf_object_key"],
        "steps": f"{level2['steps']}, {names[0]} to {names[-2]}",
        "size": f"{level2['bytes'] / 1e6:.1f} MB in {len(names)} files",
        "pointing": "from the frames" if level2["is_pointing_from_frames"] else "from the record's box",
    }
