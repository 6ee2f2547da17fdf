"""Writing the level-2 files of an inversion, and checking that they are what was written.

Can be killed at any point and repeated: a file counts only with the manifest, which comes last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dagster_l2.base.files import only_one, sha256, write_durably, write_json
from dagster_l2.products.layout import PRODUCT_FILES
from dagster_l2.products.level2.contents import Contents, open_contents
from dagster_l2.products.level2.fits_file import FitsWriter, primary_header, profile_headers, quantity_headers
from dagster_l2.products.level2.layout import (
    LEVEL2_MANIFEST,
    SCHEMA_VERSION,
    Level2Damaged,
    Level2Files,
    Level2Refused,
    Level2Request,
    asdf_name,
    fits_names,
    object_folder,
)
from dagster_l2.products.level2.steps import Steps, steps_of

_LOCK = ".writing.lock"


def write_level2(
    products: Path, root: Path, request: Level2Request, frames: Iterable[Path] = ()
) -> Level2Files:
    """Write the level-2 files of verified products below ``root`` and return what was written.

    Parameters
    ----------
    products
        The folder of the three product files, at home and verified.
    root
        The files come into ``<proposal>/inv_XXXXXX`` below it.
    frames
        Level-1 frames of the canonical dataset, where they are at hand: they say where and when a step was.

    Returns
    -------
    Level2Files
        What was there already, when the manifest there is of the same products and the same request and its
        files are intact.

    Raises
    ------
    Level2Refused
        The products cannot be told in level-2 files, or the disk refuses them.
    AlreadyRunning
        Another process writes the files of this inversion at this moment.
    """
    inside = object_folder(request.proposal_id, request.inversion_id)
    folder = root / inside
    basis = {
        "schema_version": SCHEMA_VERSION,
        "request": request.as_dict(),
        "products": {name: sha256(products / name) for name in PRODUCT_FILES},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder / _LOCK, f"The writing of {folder}"):
            there = _whole_and_same(folder, basis)
            if there is None:
                there = _write_all(products, folder, request, sorted(frames), basis)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Level2Refused(
            f"The level-2 files of {request.inversion_id} cannot be written to {folder} ({reason}); "
            "free space or give access, then run again."
        ) from error
    return Level2Files(folder, inside, there)


def read_level2(root: Path, proposal_id: str, inversion_id: str) -> Level2Files | None:
    """The level-2 files of an inversion as its manifest lists them, unchecked; None without a manifest."""
    inside = object_folder(proposal_id, inversion_id)
    manifest = _read_manifest(root / inside)
    return None if manifest is None else Level2Files(root / inside, inside, manifest)


def check_level2(files: Level2Files) -> None:
    """Compare every file with the manifest.

    Raises
    ------
    Level2Damaged
        The first that is missing or other than written.
    """
    for file in files.manifest["files"]:
        path = files.folder / str(file["name"])
        if not path.is_file():
            raise Level2Damaged(
                f"The level-2 file {path} is missing; write the files of the inversion again."
            )
        if path.stat().st_size != file["size"] or sha256(path) != file["sha256"]:
            raise Level2Damaged(
                f"The level-2 file {path} is not what was written; write the files of the inversion again."
            )


def _write_all(
    products: Path, folder: Path, request: Level2Request, frames: Sequence[Path], basis: dict[str, Any]
) -> dict[str, Any]:
    # A manifest of other content must not stand beside files that are being replaced.
    (folder / LEVEL2_MANIFEST).unlink(missing_ok=True)
    with open_contents(products) as contents:
        steps = steps_of(request, frames, contents.steps, contents.slit_pixels)
        names = fits_names(
            request.inversion_id, [begin.isoformat("T", "microseconds") for begin in steps.begins]
        )
        headers = _write_steps(folder, request, contents, steps, names)
        name = asdf_name(request.inversion_id)
        # Loaded by those that write: it is a tenth of a second that no other command should pay.
        from dagster_l2.products.level2.asdf_file import write_asdf

        write_durably(
            folder / name,
            lambda temporary: write_asdf(temporary, request, contents, steps, names, headers),
        )
    manifest = {
        **basis,
        "asdf": name,
        "steps": len(steps),
        "is_pointing_from_frames": steps.from_frames,
        "lines": [part.line.name for part in contents.lines],
        "files": [
            {"name": file, "size": (folder / file).stat().st_size, "sha256": sha256(folder / file)}
            for file in (*names, name)
        ],
    }
    _remove_others(folder, {*names, name})
    write_json(folder / LEVEL2_MANIFEST, manifest)
    return manifest


def _write_steps(
    folder: Path, request: Level2Request, contents: Contents, steps: Steps, names: list[str]
) -> tuple[list[Any], list[list[Any]], list[list[Any]]]:
    """Write the FITS files; their headers, by HDU and then by step."""
    primary, quantities, profiles = [], [], []
    writer = FitsWriter()
    for step, arrays in enumerate(contents.each_step()):
        first = primary_header(request, contents, steps, step, names[step])
        of_quantities = quantity_headers(request, contents, steps, step, arrays)
        of_profiles = profile_headers(request, contents, steps, step, arrays)

        parts = (first, [*of_quantities, *of_profiles], arrays)
        write_durably(
            folder / names[step],
            lambda temporary, parts=parts: writer.write(temporary, *parts),  # type: ignore[misc]
            is_last=step == len(names) - 1,
        )
        primary.append(first)
        quantities.append(of_quantities)
        profiles.append(of_profiles)
    return (
        primary,
        [list(rows) for rows in zip(*quantities, strict=True)],
        [list(rows) for rows in zip(*profiles, strict=True)],
    )


def _whole_and_same(folder: Path, basis: dict[str, Any]) -> dict[str, Any] | None:
    manifest = _read_manifest(folder)
    if manifest is None or any(manifest.get(key) != value for key, value in basis.items()):
        return None
    try:
        check_level2(Level2Files(folder, object_folder("", ""), manifest))
    except Level2Damaged:
        return None
    return manifest


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((folder / LEVEL2_MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "files" in content else None


def _remove_others(folder: Path, names: set[str]) -> None:
    # Of an earlier request, or the temporary files of a writer that was killed.
    for path in folder.iterdir():
        is_ours = path.suffix in {".fits", ".asdf", ".tmp"}
        if is_ours and path.name not in names:
            path.unlink(missing_ok=True)
