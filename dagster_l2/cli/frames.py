"""How the staging of an OP's level-1 frames stands, as people read it."""

from __future__ import annotations

from typing import Any


def staging_pairs(staging: dict[str, Any]) -> dict[str, Any]:
    """The same as people read it."""
    taken, quota = _megabytes(staging["taken_bytes"]), _megabytes(staging["quota_bytes"])
    here = "not asked for yet"
    if staging["frames_listed"] is not None:
        listed = _megabytes(staging["bytes_listed"])
        here = f"{staging['frames']:,} of {staging['frames_listed']:,}, which are {listed} MB"
    pairs = {
        "staged": staging["staged"],
        "frames": here,
        "on disk": f"{_megabytes(staging['bytes'])} MB{' with the cubes' if staging['cubes'] else ''}",
        "quota": f"{taken} of {quota} MB taken by all OPs",
    }
    if staging.get("failed"):
        pairs["failed"] = staging["failed"]
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
