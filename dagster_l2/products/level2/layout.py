"""The layout of level-2 files: names, quantities with their units, and what a request to write them holds.

The layout is the observatory's: one FITS file per step of the slit and one ASDF file for all of them, as the
level-2 example of the ``dkist`` package has it. Values are in the units here, not in those of the hand-over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from dagster_l2.base.files import safe_name
from dagster_l2.products.layout import ProductError

LEVEL2_MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


class Level2Refused(ProductError):
    """Products that passed cannot be put into level-2 files."""


class Level2Damaged(ProductError):
    """Level-2 files are not, or no longer, what their manifest says."""


@dataclass(frozen=True, slots=True)
class Level2Quantity:
    """How a quantity of the hand-over appears in level-2 files.

    Parameters
    ----------
    source
        Its name in ``products.layout``.
    key
        Its name in the ASDF file.
    title, kind
        ``EXTNAME`` and ``BTYPE`` (a UCD) of its HDU.
    unit
        In FITS notation, empty for a pure number.
    """

    source: str
    key: str
    title: str
    kind: str
    unit: str


_LINE_OF_SIGHT = "(w.r.t. line-of-sight)"
# In the order of the HDUs: the first is HDU 1.
LEVEL2_QUANTITIES = (
    Level2Quantity(
        "optical depth", "optical_depth", "Log of Optical Depth at 500nm", "phys.absorption.opticalDepth", ""
    ),
    Level2Quantity("temperature", "temperature", "Temperature", "phys.temperature", "K"),
    Level2Quantity(
        "electron pressure",
        "electron_pressure",
        "Electron Pressure",
        "phys.electron;phys.pressure",
        "N/m^2",
    ),
    Level2Quantity("microturbulence", "microturbulence", "Microturbulence", "phys.veloc.microTurb", "km/s"),
    Level2Quantity("magnetic strength", "mag_strength", "Magnetic Field Strength", "phys.magField", "T"),
    Level2Quantity("velocity", "velocity", "Line-of-sight Velocity", "spect.dopplerVeloc", "km/s"),
    Level2Quantity(
        "inclination",
        "mag_inclination",
        f"Magnetic Field Inclination {_LINE_OF_SIGHT}",
        "phys.magField;pos.angDistance",
        "deg",
    ),
    Level2Quantity(
        "azimuth",
        "mag_azimuth",
        f"Magnetic Field Azimuth {_LINE_OF_SIGHT}",
        "phys.magField;pos.azimuth",
        "deg",
    ),
    Level2Quantity(
        "geometric height",
        "geo_height",
        "Geometric Height above solar surface (tau ~ 1 at 500nm)",
        "phys.distance",
        "km",
    ),
    Level2Quantity("gas pressure", "gas_pressure", "Gas Pressure", "phys.pressure", "N/m^2"),
    Level2Quantity("density", "density", "Density", "phys.density", "kg/m^3"),
)
PROFILE_KIND = "spect.line.profile"


@dataclass(frozen=True, slots=True)
class Level2Request:
    """What the level-2 files of one inversion say beside their arrays.

    Parameters
    ----------
    start_time, end_time
        Of the observation, UTC; where the frames are not at hand, the steps lie evenly between them.
    bounding_box
        Of the observation, ``(x1,y1),(x2,y2)`` in arcsec from the sun's centre; used likewise.
    canonical_dataset_id
        The dataset whose frames tell where and when each step was.
    created_at
        What the files say as the moment of their making. Given and not asked of the clock, so that the same
        request makes the same bytes.
    software_commit, rule_version
        Of the inversion, and of the rules that found the OP invertible.
    """

    inversion_id: str
    op_id: str
    proposal_id: str
    experiment_id: str | None
    instrument_program_id: str
    instrument: str
    dataset_ids: tuple[str, ...]
    canonical_dataset_id: str
    start_time: datetime
    end_time: datetime
    bounding_box: str | None
    created_at: datetime
    software_commit: str | None = None
    rule_version: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON, for the manifest."""
        plain = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
        }
        return {**plain, "dataset_ids": list(self.dataset_ids)}


@dataclass(frozen=True, slots=True)
class Level2Files:
    """The level-2 files of one inversion, as their manifest lists them.

    Parameters
    ----------
    folder
        Where they lie.
    object_folder
        Their folder in a bucket, ``<proposal>/inv_XXXXXX``.
    manifest
        ``files`` are names with size and SHA-256, ``asdf`` is the name of the ASDF file.
    """

    folder: Path
    object_folder: PurePosixPath
    manifest: Mapping[str, Any]

    @property
    def asdf_object_key(self) -> str:
        """The ASDF file in the bucket, as the metadata store names it."""
        return str(self.object_folder / str(self.manifest["asdf"]))

    @property
    def names(self) -> list[str]:
        """The files, the FITS files in the order of the steps and then the ASDF file."""
        return [str(file["name"]) for file in self.manifest["files"]]

    @property
    def size(self) -> int:
        """Of all files, in bytes."""
        return sum(int(file["size"]) for file in self.manifest["files"])


def object_folder(proposal_id: str, inversion_id: str) -> PurePosixPath:
    """Where the files of an inversion lie in a bucket: ``<proposal>/inv_XXXXXX``."""
    return PurePosixPath(safe_name(proposal_id), safe_name(inversion_id.replace(".", "_")))


def asdf_name(inversion_id: str) -> str:
    """The name of the ASDF file."""
    return f"{_stem(inversion_id)}_L2_metadata.asdf"


def fits_names(inversion_id: str, begins: list[str]) -> list[str]:
    """The names of the FITS files, given when each step began as ``2024-04-17T20:25:26.516000``.

    They sort as the steps follow each other. Steps of one millisecond, which only a record without times
    brings about, are numbered.
    """
    stem = _stem(inversion_id)
    moments = [begin[:23].translate(str.maketrans("-:.", "___")) for begin in begins]
    if len(set(moments)) < len(moments) or sorted(moments) != moments:
        width = len(str(len(moments)))
        moments = [f"{moments[0]}_{number:0{width}}" for number in range(1, len(moments) + 1)]
    return [f"{stem}_{moment}_L2.fits" for moment in moments]


def _stem(inversion_id: str) -> str:
    return safe_name(inversion_id.replace(".", "_").upper())
