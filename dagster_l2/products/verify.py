"""Whether a hand-over is what it must be: names, readability, dimensions, values, and whose it is.

Here: the checks and nothing that changes a file. Which values a quantity can have is in ``plausible``, what
the wavelength axis must be in ``axes``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dagster_l2.base.files import sha256
from dagster_l2.products.axes import check_axes
from dagster_l2.products.layout import (
    FITTED_FILE,
    INVERSION_KEYWORD,
    MODEL_AXES,
    MODEL_FILE,
    OBSERVED_FILE,
    OP_KEYWORD,
    PRODUCT_FILES,
    PROFILE_AXES,
    QUANTITIES,
    STEP_AXIS,
    STOKES,
    SYNTHETIC_KEYWORD,
    Declared,
    ProductFile,
    ProductsRefused,
    VerifiedProducts,
    header_text,
)
from dagster_l2.products.plausible import Statistics, statistics, value_findings, value_problems
from dagster_l2.products.reading import OpenProduct, Unreadable, is_of_the_system, open_product

_AXES = {MODEL_FILE: MODEL_AXES, FITTED_FILE: PROFILE_AXES, OBSERVED_FILE: PROFILE_AXES}
_FIRST_AXIS = {"quantity": len(QUANTITIES), "stokes": len(STOKES)}
_VECTORS = {1: "wavelength offsets", 2: "line ids"}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one readable file showed."""

    file: ProductFile
    names_op: bool
    names_inversion: bool
    synthetic: bool
    statistics: tuple[Statistics, ...]
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Said:
    """What the hand-over says that the files are, and what is found to say of them."""

    op_id: str
    inversion_id: str
    declared: Declared
    may_be_synthetic: bool
    problems: list[str]
    findings: list[str]


def verify(
    folder: Path,
    *,
    op_id: str,
    inversion_id: str,
    dataset_ids: Sequence[str],
    declared: Declared | None = None,
    may_be_synthetic: bool = False,
) -> VerifiedProducts:
    """Check the three product files in ``folder``, reading them plane by plane.

    Dimensions after the facts page on the hand-over: ``inv_res_mod.fits`` is ``[11, depth, y, x]``;
    ``inv_res_pre.fits`` is ``[4, wavelength, y, x]`` with the wavelength offsets in mÅ as extension 1 and the
    line ids as extension 2, each of the length of the wavelength axis; ``per_ori.fits`` has the shape of
    ``inv_res_pre.fits``; y and x are the same in all. y are the slit positions: as many as the inputs
    have, or one fewer, since the last one of a map may be incomplete.

    At least half of the values of a file are finite, and at most 1 % of those of a quantity impossible. More
    than 5 % that are unusual are a finding.

    Parameters
    ----------
    dataset_ids
        The level-1 datasets that were inverted, kept with the result.
    declared
        What is known of them; the wavelength axis, the lines and the slit positions are compared with it.
    may_be_synthetic
        Whether products that say of themselves that they are made up are taken; what does not fit
        ``declared`` is then told of them and not refused.

    Raises
    ------
    ProductsRefused
        With every problem of the folder; nothing was changed.
    OSError
        The disk or the share gives up, which says nothing of the products.
    """
    said = _Said(op_id, inversion_id, declared or Declared(), may_be_synthetic, [], [])
    if not dataset_ids:
        said.problems.append("The hand-over names no dataset that was inverted")
    if not folder.is_dir():
        raise ProductsRefused([*said.problems, f"The products folder {str(folder)!r} does not exist"])
    found = (_check_file(folder / name, said) for name in PRODUCT_FILES)
    seen = [one for one in found if one is not None]
    _check_together(seen, said)
    if said.problems:
        raise ProductsRefused(said.problems)
    return VerifiedProducts(
        op_id=op_id,
        inversion_id=inversion_id,
        dataset_ids=tuple(dataset_ids),
        files=tuple(one.file for one in seen),
        says_op=any(one.names_op for one in seen),
        says_inversion=any(one.names_inversion for one in seen),
        synthetic=any(one.synthetic for one in seen),
        findings=tuple(said.findings),
        lines=next((one.lines for one in seen if one.lines), ()),
        statistics=tuple(row for one in seen for row in one.statistics),
    )


def _check_together(seen: Sequence[_Seen], said: _Said) -> None:
    """Check what is right by itself for whether it fits: the files each other, the inputs, the OP."""
    shapes = {one.file.name: one.file.shape for one in seen}
    said.problems.extend(_shape_conflicts(shapes))
    is_synthetic = any(one.synthetic for one in seen)
    # Made-up products play a part where inputs are made up, too: what does not fit them is told, not refused.
    (said.findings if is_synthetic else said.problems).extend(_step_problems(shapes, said.declared))
    if not said.problems:
        said.problems.extend(
            f"{one.file.name} {text}" for one in seen for text in value_problems(one.statistics)
        )
    if not any(one.names_op for one in seen):
        said.findings.append(f"No header says by {OP_KEYWORD} which OP the products belong to.")


def _check_file(path: Path, said: _Said) -> _Seen | None:
    """Check one file by itself; None when its shape cannot be used to compare it with the others."""
    name, problems, findings = path.name, said.problems, said.findings
    try:
        with open_product(path, findings) as product:
            # Before the checks: what is altered later no longer has this sum, and the copy home notices.
            digest, size = sha256(path), path.stat().st_size
            named = {
                keyword: _check_identity(product, name, keyword, expected, problems)
                for keyword, expected in (
                    (OP_KEYWORD, said.op_id),
                    (INVERSION_KEYWORD, said.inversion_id),
                )
            }
            is_synthetic = product.header(SYNTHETIC_KEYWORD) is True
            if is_synthetic and not said.may_be_synthetic:
                problems.append(
                    f"{name} says {SYNTHETIC_KEYWORD} = T, and made-up products are not taken here"
                    " (L2_SYNTHETIC_PRODUCTS)"
                )
                return None
            shape = product.shape()
            shape_problem = _shape_problem(shape, _AXES[name])
            if shape is None or shape_problem:
                problems.append(f"{name} {shape_problem}")
                return None
            lines: tuple[str, ...] = ()
            if name == FITTED_FILE:
                found = _vector_problems(product, shape[1])
                if not found:
                    lines, found, strange = check_axes(product, said.declared)
                    is_told = is_synthetic or not said.declared.lines
                    (findings if is_told else problems).extend(f"{name} {text}" for text in strange)
                problems.extend(f"{name} {text}" for text in found)
            rows = tuple(_statistics(product, shape, name))
            findings.extend(f"{name}: {text}" for text in value_findings(rows))
            share = sum(row.finite_share for row in rows) / len(rows)
            return _Seen(
                ProductFile(name, size, digest, shape, share),
                names_op=named[OP_KEYWORD],
                names_inversion=named[INVERSION_KEYWORD],
                synthetic=is_synthetic,
                statistics=rows,
                lines=lines,
            )
    except Unreadable as error:
        problems.append(f"{name} {error}")
    except OSError as error:
        if is_of_the_system(error):
            raise
        problems.append(f"{name} cannot be read ({error.strerror or error})")
    return None


def _check_identity(
    product: OpenProduct, name: str, keyword: str, expected: str, problems: list[str]
) -> bool:
    """Whether the header names the expected id; a wrong one is a problem, a missing one is not."""
    value: Any = product.header(keyword)
    if value is None or str(value).strip() == "":
        return False
    if str(value).strip() != header_text(expected):
        problems.append(
            f"{name} says {keyword} {str(value)!r}, but {header_text(expected)!r} was handed over"
        )
        return False
    return True


def _shape_problem(shape: tuple[int, ...] | None, axes: tuple[str, ...]) -> str | None:
    layout = f"[{', '.join(axes)}]"
    if shape is None:
        return f"has no image as its primary data, expected {layout}"
    if len(shape) != len(axes):
        return f"has {len(shape)} axes, expected {len(axes)}: {layout}"
    wanted = _FIRST_AXIS[axes[0]]
    if shape[0] != wanted:
        return f"has {shape[0]} on the {axes[0]} axis, expected {wanted}: {layout}"
    for length, axis in zip(shape, axes, strict=True):
        if length < 1:
            return f"has nothing on its {axis} axis"
    return None


def _vector_problems(product: OpenProduct, wavelengths: int) -> list[str]:
    problems = []
    for index, what in _VECTORS.items():
        if index >= product.hdu_count:
            problems.append(f"lacks extension {index} with the {what}")
            continue
        shape = product.shape(index)
        if shape != (wavelengths,):
            there = "a table" if shape is None else f"of shape {list(shape)}"
            problems.append(f"has {what} {there} in extension {index}, expected [{wavelengths}]")
        elif not np.isfinite(product.vector(index)).all():
            problems.append(f"has {what} in extension {index} that are not finite")
    return problems


def _statistics(product: OpenProduct, shape: tuple[int, ...], name: str) -> Iterator[Statistics]:
    """Of each quantity or Stokes parameter; one plane of the file is in memory at a time."""
    for first in range(shape[0]):
        what, unit = (
            (QUANTITIES[first].name, QUANTITIES[first].unit)
            if name == MODEL_FILE
            else (f"Stokes {STOKES[first]}", "")
        )
        planes = (product.plane(first, second) for second in range(shape[1]))
        # Python's whole numbers: a product of axis lengths leaves 32 bits easily.
        yield statistics(name, what, unit, planes, shape[1] * shape[2] * shape[3])


def _step_problems(shapes: dict[str, tuple[int, ...]], declared: Declared) -> list[str]:
    """Where the slit positions are not those of the inputs."""
    model = shapes.get(MODEL_FILE)
    if model is None or not declared.steps:
        return []
    fits = {steps - missing for steps in declared.steps for missing in (0, 1)}
    if model[STEP_AXIS] in fits:
        return []
    wanted = ", ".join(str(steps) for steps in sorted(set(declared.steps)))
    return [
        f"{MODEL_FILE} has {model[STEP_AXIS]} slit positions (y), but the inputs {wanted}"
        " (one may be missing at the end)"
    ]


def _shape_conflicts(shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Where files that are right by themselves do not fit each other."""
    problems = []
    fitted, observed, model = (shapes.get(name) for name in (FITTED_FILE, OBSERVED_FILE, MODEL_FILE))
    if fitted and observed and fitted != observed:
        problems.append(
            f"{OBSERVED_FILE} has the shape {list(observed)}, but {FITTED_FILE} has {list(fitted)}"
        )
    profiles = fitted or observed
    if model and profiles and model[2:] != profiles[2:]:
        problems.append(
            f"{MODEL_FILE} covers {model[2]} x {model[3]} points (y, x), but the profiles "
            f"{profiles[2]} x {profiles[3]}"
        )
    return problems
