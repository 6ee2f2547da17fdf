"""The wavelength axis of a hand-over: offsets and line ids, compared with the datasets that were inverted.

What a line id stands for is in ``lines``; the shape of the two vectors is ``verify``'s.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dagster_l2.products.layout import Declared
from dagster_l2.products.lines import UnknownLine, line_named, lines_of
from dagster_l2.products.reading import OpenProduct

_FARTHEST_MA = 50_000.0  # 5 nm: more than an arm of the spectrograph sees around a line
_SAME_NM = 0.05  # names of lines are rounded to 0.01 nm, and in air or vacuum
_MARGIN_NM = 0.3  # the range of a dataset is that of its first frame


def check_axes(product: OpenProduct, declared: Declared) -> tuple[tuple[str, ...], list[str], list[str]]:
    """The lines of an open ``inv_res_pre.fits``; what is wrong with its wavelength axis; what does not fit.

    The second list speaks against the axis by itself, the third against it as one of the declared datasets.
    Each problem goes on after the file's name.
    """
    offsets, line_ids = product.vector(1).astype(float), product.vector(2)
    if (line_ids != np.floor(line_ids)).any() or (line_ids < 1).any():
        return (), ["has line ids in extension 2 that are no whole numbers from 1"], []
    ids = [int(number) for number in line_ids]
    problems = _offset_problems(offsets, np.asarray(ids))
    header = {f"LINE{number}": product.header(f"LINE{number}") for number in set(ids)}
    try:
        lines = lines_of(ids, header)
    except UnknownLine as error:
        return (), problems, [str(error)]
    names = tuple(line.name for line in lines.values())
    strange = _line_problems(names, declared)
    for number, line in lines.items():
        part = offsets[np.asarray(ids) == number]
        low, high = (line.wavelength_nm + edge * 1e-4 for edge in (part.min(), part.max()))
        is_seen = any(
            start - _MARGIN_NM <= low and high <= end + _MARGIN_NM for start, end in declared.ranges_nm
        )
        if declared.ranges_nm and not is_seen:
            strange.append(
                f"has {line.name} from {low:.2f} to {high:.2f} nm, which none of the datasets covers"
            )
    return names, problems, strange


def _offset_problems(offsets: Any, ids: Any) -> list[str]:
    if (np.abs(offsets) > _FARTHEST_MA).any():
        return [
            f"has wavelength offsets beyond {_FARTHEST_MA:g} mÅ in extension 1: are they in another unit?"
        ]
    changes = int(np.count_nonzero(np.diff(ids)))
    if changes + 1 != len(set(ids.tolist())):
        return ["has line ids in extension 2 that come again after another line"]
    for number in dict.fromkeys(ids.tolist()):
        if (np.diff(offsets[ids == number]) <= 0).any():
            return [f"has wavelength offsets in extension 1 that do not ascend in line {number}"]
    return []


def _line_problems(names: tuple[str, ...], declared: Declared) -> list[str]:
    """Lines that none of the datasets has; a name that says no wavelength is compared as it is."""
    return [
        f"holds the line {name}, but the datasets were declared with {', '.join(declared.lines)}"
        for name in names
        if declared.lines and not any(_is_same(name, other) for other in declared.lines)
    ]


def _is_same(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        mine, theirs = line_named(one), line_named(other)
    except UnknownLine:
        return False
    return mine.ion == theirs.ion and abs(mine.wavelength_nm - theirs.wavelength_nm) <= _SAME_NM
