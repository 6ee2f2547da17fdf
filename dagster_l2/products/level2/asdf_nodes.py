"""The vocabulary of ASDF that level-2 files use: tagged nodes, without the packages that read them.

Written by hand, since the readers' packages (``dkist``, ``gwcs``, ``sunpy``) are a hundred times as large as
``asdf`` and slow to load; the tests open what comes of it with them, and so against their schemas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from asdf.tagged import TaggedDict, TaggedString

Array = np.ndarray[Any, np.dtype[Any]]
Node = Any

# The versions of the standard that the observatory writes: older readers know them too.
STANDARD = "1.5.0"
_STSCI, _ASDF, _DKIST = "tag:stsci.edu:", "tag:stsci.edu:asdf/", "asdf://dkist.nso.edu/tags/"


def node(tag: str, **content: Any) -> Node:
    """A mapping with a tag; ``_`` in front of a key that Python reserves is dropped."""
    return TaggedDict({key.rstrip("_"): value for key, value in content.items()}, tag)


def unit(name: str) -> Node:
    """A unit in the notation of VOUnit; empty for a pure number."""
    return _text(name, f"{_ASDF}unit/unit-1.0.0")


def time(moment: datetime) -> Node:
    """A time, UTC."""
    return _text(moment.replace(tzinfo=None).isoformat(timespec="microseconds"), f"{_ASDF}time/time-1.1.0")


def _text(value: str, tag: str) -> Node:
    made = TaggedString(value)
    made._tag = tag
    return made


def quantity(value: float | Array, name: str) -> Node:
    """A number or an array with a unit."""
    return node(f"{_ASDF}unit/quantity-1.1.0", unit=unit(name), value=value)


def transform(kind: str, inputs: Sequence[str], outputs: Sequence[str], **content: Any) -> Node:
    """A transform of the ASDF standard, such as ``compose-1.2.0``."""
    return node(f"{_ASDF}transform/{kind}", inputs=list(inputs), outputs=list(outputs), **content)


def chain(*parts: Node) -> Node:
    """One transform after the other."""
    first, *rest = parts
    for after in rest:
        first = transform("compose-1.2.0", first["inputs"], after["outputs"], forward=[first, after])
    return first


def beside(*parts: Node) -> Node:
    """Transforms side by side, each with its own inputs, which must differ in name."""
    first, *rest = parts
    for other in rest:
        first = transform(
            "concatenate-1.2.0",
            [*first["inputs"], *other["inputs"]],
            [*first["outputs"], *other["outputs"]],
            forward=[first, other],
        )
    return first


def dkist_model(kind: str, inputs: Sequence[str], outputs: Sequence[str], **content: Any) -> Node:
    """A transform of the ``dkist`` package."""
    return node(f"{_DKIST}{kind}", inputs=list(inputs), outputs=list(outputs), **content)


def along(values: Array, delta: float, name: str, given: str, made: str, *, is_even: bool) -> Node:
    """From pixels to the values of an axis: by start and step where it is even, else by its table."""
    if is_even:
        return transform(
            "linear1d-1.0.0",
            [given],
            [made],
            intercept=quantity(float(values[0]), name),
            slope=quantity(delta, f"{name}.pixel**-1" if name else "pixel**-1"),
        )
    return lookup(values, name, given, made)


def lookup(values: Array, name: str, given: str, made: str, *, method: str = "linear") -> Node:
    """From pixels to values by a table, outside of which there is nothing."""
    return transform(
        "tabular-1.2.0",
        [given],
        [made],
        bounds_error=False,
        fill_value=float("nan"),
        lookup_table=quantity(np.asarray(values, dtype=float), name),
        method=method,
        points=[quantity(np.arange(len(values), dtype=float), "pixel")],
    )


def gwcs(frames: Sequence[Node], pixel_names: Sequence[str], forward: Node) -> Node:
    """A generalized world coordinate system from pixels to ``frames``."""
    count = len(pixel_names)
    pixels = node(
        f"{_STSCI}gwcs/frame-1.0.0",
        name="pixel",
        axes_type=["PIXEL"] * count,
        naxes=count,
        axes_names=list(pixel_names),
        axes_order=list(range(count)),
        axis_physical_types=["PIXEL"] * count,
        unit=[unit("pixel")] * count,
    )
    world = node(f"{_STSCI}gwcs/composite_frame-1.0.0", name="CompositeFrame", frames=list(frames))
    step = f"{_STSCI}gwcs/step-1.1.0"
    return node(
        f"{_STSCI}gwcs/wcs-1.2.0",
        name="",
        steps=[node(step, frame=pixels, transform=forward), node(step, frame=world, transform=None)],
    )


def frame(kind: str, **content: Any) -> Node:
    """A frame of a world coordinate system, such as ``celestial_frame-1.0.0``."""
    return node(f"{_STSCI}gwcs/{kind}", **content)


def table(rows: Sequence[Mapping[str, Any]]) -> Node:
    """A table of headers, one row each; a keyword that a row lacks is empty or NaN there."""
    names = sorted({name for row in rows for name in row})
    columns = [
        node(f"{_ASDF}core/column-1.0.0", name=name, data=_column([row.get(name) for row in rows]))
        for name in names
    ]
    return node("tag:astropy.org:astropy/table/table-1.0.0", colnames=names, columns=columns, qtable=False)


def _column(values: Sequence[Any]) -> Array:
    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known):
        return np.array(["" if value is None else str(value) for value in values])
    if len(known) < len(values):
        return np.array([np.nan if value is None else float(value) for value in values])
    return np.array(values)
