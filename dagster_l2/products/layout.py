"""The layout of a hand-over: file names, axes, quantities with their units, and header keywords, each once.

Also what the room hands out and the errors it raises. Reading, checking and writing the files is in the
modules beside this one.

A hand-over says which observing program and inversion it belongs to by two keywords in the primary headers,
``OBSPR_ID`` (the OP's id, as in level-1 headers) and ``INV_ID`` (``inv.XXXXXX``). Both are optional; where
they are given they must be right. ``SYNTHET = T`` marks products that were made up, not inverted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dagster_l2.base.errors import L2Error
from dagster_l2.base.files import safe_name
from dagster_l2.products.plausible import Statistics

MODEL_FILE = "inv_res_mod.fits"
FITTED_FILE = "inv_res_pre.fits"
OBSERVED_FILE = "per_ori.fits"
PRODUCT_FILES = (MODEL_FILE, FITTED_FILE, OBSERVED_FILE)

OP_KEYWORD = "OBSPR_ID"
INVERSION_KEYWORD = "INV_ID"
SYNTHETIC_KEYWORD = "SYNTHET"

STOKES = ("I", "Q", "U", "V")


@dataclass(frozen=True, slots=True)
class Quantity:
    """One quantity of ``inv_res_mod.fits``; its place in `QUANTITIES` is its index on the first axis."""

    name: str
    unit: str


# The columns of a SIR model atmosphere, in its units (SIR manual, "model atmosphere files"): CGS, optical
# depth as log10 at 500 nm, a positive velocity goes away from the observer, angles are to the line of sight.
QUANTITIES = (
    Quantity("optical depth", ""),
    Quantity("temperature", "K"),
    Quantity("electron pressure", "dyn/cm2"),
    Quantity("microturbulence", "cm/s"),
    Quantity("magnetic strength", "G"),
    Quantity("velocity", "cm/s"),
    Quantity("inclination", "deg"),
    Quantity("azimuth", "deg"),
    Quantity("geometric height", "km"),
    Quantity("gas pressure", "dyn/cm2"),
    Quantity("density", "g/cm3"),
)
QUANTITY_INDEX = {quantity.name: index for index, quantity in enumerate(QUANTITIES)}

# y are the steps of the slit, in the order of the frames, and x goes along the slit: the observatory's
# level-2 example names the two axes `frame_y` and `slit_x`, and counts its frames along the first.
STEP_AXIS, SLIT_AXIS = 2, 3
MODEL_AXES = ("quantity", "depth", "y", "x")
PROFILE_AXES = ("stokes", "wavelength", "y", "x")


# Who is told of one problem at a time hands over as often; a hundred of the same kind say no more than ten.
_MOST_SAID = 10


class ProductError(L2Error):
    """Something is wrong with a hand-over; the message is one sentence."""


class ProductsRefused(ProductError):
    """The products cannot be accepted as they are.

    Parameters
    ----------
    problems
        Every problem found, at least one; the message has the first ten and how many more there are.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        said = problems[:_MOST_SAID]
        more = f" (and {len(problems) - len(said)} more)" if len(problems) > len(said) else ""
        super().__init__(f"{'; '.join(said)}{more}.")
        self.problems = tuple(problems)


class ProductsUnreachable(ProductError):
    """Products could not come home now; what has come stays, and another try goes on from there."""

    transient = True


@dataclass(frozen=True, slots=True)
class ProductFile:
    """One verified file: size in bytes, shape of its data and the share of them that is finite (0..1)."""

    name: str
    size: int
    sha256: str
    shape: tuple[int, ...]
    finite_share: float


@dataclass(frozen=True, slots=True)
class Declared:
    """What the hand-over says was inverted, of the input package; empty is not known, and then not compared.

    Parameters
    ----------
    lines
        Names of the spectral lines of the datasets.
    ranges_nm
        The wavelength range of each dataset, in nm.
    steps
        Slit positions of each dataset: frames per Stokes parameter.
    """

    lines: tuple[str, ...] = ()
    ranges_nm: tuple[tuple[float, float], ...] = ()
    steps: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifiedProducts:
    """A hand-over that passed.

    Parameters
    ----------
    says_op, says_inversion
        Whether a header names the OP, the inversion (and then rightly); where not, only the hand-over's word
        links the files to them.
    synthetic
        Whether any file is marked as made up.
    findings
        What a person should know though it refuses nothing, one sentence each.
    lines
        The spectral lines that the line ids stand for.
    statistics
        Of each quantity and Stokes parameter.
    """

    op_id: str
    inversion_id: str
    dataset_ids: tuple[str, ...]
    files: tuple[ProductFile, ...]
    says_op: bool
    says_inversion: bool
    synthetic: bool
    findings: tuple[str, ...] = field(default=())
    lines: tuple[str, ...] = field(default=())
    statistics: tuple[Statistics, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON, for the ledger and the manifest."""
        plain = asdict(self)
        plain["files"] = [{**asdict(file), "shape": list(file.shape)} for file in self.files]
        lists = {name: list(plain[name]) for name in ("dataset_ids", "findings", "lines", "statistics")}
        return {**plain, **lists}


def header_text(identifier: str) -> str:
    """How an id stands in a FITS header.

    A card holds printable ASCII only and drops blanks at the end; an id with anything else is written under
    its safe name.
    """
    if identifier.isascii() and identifier.isprintable() and identifier == identifier.strip():
        return identifier
    return safe_name(identifier)
