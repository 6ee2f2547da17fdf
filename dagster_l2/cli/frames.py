"""How the staging of an OP's level-1 frames stands, for `l2 show`."""

from __future__ import annotations

from typing import Any

from dagster_l2.settings import Settings


def staging_of(settings: Settings, op: str) -> dict[str, Any] | None:
    """How the frames of an OP stand; None where it has no input package."""
    from dagster_l2.inputs import PackageUnreadable, package_folder, standing
    from dagster_l2.staging import taken_bytes

    folder = package_folder(settings.data, op)
    try:
        content = standing(folder)
    except PackageUnreadable:
        return None
    quota = {"taken_bytes": taken_bytes(settings), "quota_bytes": int(settings.stage_quota_gb * 1e9)}
    return {"folder": folder, **content, **quota}


def staging_pairs(staging: dict[str, Any]) -> dict[str, Any]:
    """The same as people read it."""
    of = "" if staging["frames_listed"] is None else f" of {_megabytes(staging['bytes_listed'])} MB"
    taken, quota = _megabytes(staging["taken_bytes"]), _megabytes(staging["quota_bytes"])
    here = "not asked for yet"
    if staging["frames_listed"] is not None:
        here = f"{staging['frames']:,} of {staging['frames_listed']:,}"
    pairs = {
        "staged": staging["staged"],
        "frames": here,
        "on disk": f"{_megabytes(staging['bytes'])}{of}" if of else f"{_megabytes(staging['bytes'])} MB",
        "quota": f"{taken} of {quota} MB taken by all OPs",
    }
    if staging["missing"]:
        pairs["did not arrive"] = f"{len(staging['missing'])}, the first {staging['missing'][0]}"
    if staging["wrong"]:
        first = staging["wrong"][0]
        pairs["wrong"] = f"{len(staging['wrong'])}, the first: {first['message']}"
    if staging["picture"]:
        pairs["picture"] = staging["folder"] / staging["picture"]
    if staging["cubes"]:
        pairs["cubes"] = [str(staging["folder"] / name) for name in staging["cubes"]]
    return pairs


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f}"
