"""The spectral lines of a hand-over: what a line id means, and where the line lies.

Here: names, rest wavelengths and the ids of the inversion code. Which lines an OP must have is a rule of the
warehouse (``wanted_lines``); a test holds both to the same wavelengths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_NAME = re.compile(r"\s*(?P<ion>.+?)\s*\((?P<nm>[0-9]+(?:\.[0-9]+)?) nm\)\s*")
_ROMAN = re.compile(r"^([A-Z][a-z]? [IVX]+)\b")


class UnknownLine(ValueError):
    """A line id or name says nothing; the message goes on after the file's name."""


@dataclass(frozen=True, slots=True)
class Line:
    """One spectral line.

    Parameters
    ----------
    name
        As the metadata store has it, ``Fe I (630.15 nm)``.
    key
        The short name in level-2 files, ``FeI630``; never with an underscore, at which readers cut it.
    ion
        ``Fe I``.
    wavelength_nm
        At rest, in air.
    """

    name: str
    key: str
    ion: str
    wavelength_nm: float


# By the ids of the inversion code's line list. The name rounds what the centre of the offsets is.
KNOWN_LINES: Mapping[int, Line] = {
    23: Line("Fe I (630.15 nm)", "FeI630", "Fe I", 630.15012),
    4: Line("Ca II (854.21 nm)", "CaII854", "Ca II", 854.2091),
    9: Line("Na I D2 (589.0 nm)", "NaID", "Na I", 588.95095),
}


def line_named(name: str) -> Line:
    """The line of a name such as ``H alpha (656.28 nm)``; one that is not known lies where its name says.

    Raises
    ------
    UnknownLine
        The name holds no wavelength.
    """
    for line in KNOWN_LINES.values():
        if line.name == name:
            return line
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise UnknownLine(f"names the line {name!r}, which says no wavelength")
    ion = _ROMAN.match(parts["ion"])
    nm = float(parts["nm"])
    key = re.sub(r"[^A-Za-z0-9]", "", parts["ion"]) + str(int(nm))
    return Line(name, key, ion[1] if ion else parts["ion"], nm)


def lines_of(line_ids: Iterable[int], header: Mapping[str, Any]) -> dict[int, Line]:
    """What each line id of ``inv_res_pre.fits`` stands for, in the order in which they first appear.

    Parameters
    ----------
    header
        The primary header: its ``LINE<n>`` names the line of id n. Where it doesn't, the ids are those of the
        inversion code.

    Raises
    ------
    UnknownLine
        An id has no name, or two ids are one line.
    """
    found: dict[int, Line] = {}
    for number in dict.fromkeys(int(line_id) for line_id in line_ids):
        named = header.get(f"LINE{number}")
        if named:
            found[number] = line_named(str(named).strip())
        elif number in KNOWN_LINES:
            found[number] = KNOWN_LINES[number]
        else:
            raise UnknownLine(f"holds the line id {number}, which neither LINE{number} nor our list names")
    names = [line.name for line in found.values()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UnknownLine(f"holds {twice!r} under two line ids")
    return _with_keys_of_their_own(found)


def _with_keys_of_their_own(found: dict[int, Line]) -> dict[int, Line]:
    # Two lines of one ion in one nanometre, as Fe I 630.15 and 630.25.
    keys = [line.key for line in found.values()]
    return {
        number: line
        if keys.count(line.key) == 1
        else Line(line.name, f"{line.key}at{line.wavelength_nm:g}", line.ion, line.wavelength_nm)
        for number, line in found.items()
    }
