"""What commands show of the level-2 files of an OP."""

from __future__ import annotations

from typing import Any

from dagster_l2.settings import Settings


def level2_of(settings: Settings, inversion_id: str | None) -> dict[str, Any] | None:
    """The level-2 files of an inversion; None before they are written."""
    from dagster_l2.level2 import files_of

    files = files_of(settings.data, inversion_id) if inversion_id else None
    if files is None:
        return None
    return {
        "inversion_id": inversion_id,
        "folder": files.folder,
        "asdf_object_key": files.asdf_object_key,
        "files": files.names,
        "bytes": files.size,
        "steps": files.manifest["steps"],
        "is_pointing_from_frames": files.manifest["is_pointing_from_frames"],
    }


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
