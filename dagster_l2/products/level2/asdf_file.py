"""The ASDF file of an inversion: what is in the FITS files, and where and when it was.

Here: the tree that ``dkist.load_dataset`` turns into an ``Inversion``. Its vocabulary is in ``asdf_nodes``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import asdf
import numpy as np
from asdf import _entry_points

from dagster_l2.products.level2.asdf_nodes import (
    STANDARD,
    Node,
    along,
    beside,
    chain,
    dkist_model,
    frame,
    gwcs,
    lookup,
    node,
    quantity,
    table,
    time,
    transform,
    unit,
)
from dagster_l2.products.level2.contents import Axis, Contents
from dagster_l2.products.level2.layout import LEVEL2_QUANTITIES, Level2Request
from dagster_l2.products.level2.steps import Steps

_RSUN_KM = 695700.0  # IAU 2015 resolution B3, as the readers assume
_SUN_POLE = (286.13, 63.87)  # right ascension and declination of the rotation axis in degrees, IAU 2015
_AU_M = 149597870700.0
_OWN = {"asdf", "asdf-standard"}
_PIXELS = {"depth": "optical_depth", "slit": "slit_x", "step": "frame_y"}
_HEADERS = Sequence[Mapping[str, Any]]


def write_asdf(
    path: Path,
    request: Level2Request,
    contents: Contents,
    steps: Steps,
    names: list[str],
    headers: tuple[_HEADERS, Sequence[_HEADERS], Sequence[_HEADERS]],
) -> None:
    """Write the ASDF file.

    Parameters
    ----------
    names
        The FITS files beside it, in the order of the steps.
    headers
        Their headers, a row for each step: the primary ones, those of each quantity, those of each profile.
    """
    primary, quantity_rows, profile_rows = headers
    inventory = _inventory(request, contents, steps)
    sky = _sky(steps)
    frames = _celestial_and_time(steps)
    quantities = _quantities(contents, names, inventory, quantity_rows, (sky, frames))
    profiles = _profiles(contents, names, inventory, profile_rows, (sky, frames))
    tree = {
        "inversion": node(
            "asdf://dkist.nso.edu/tags/inversion-0.1.0",
            meta={"inventory": inventory, "headers": table(primary)},
            quantities=quantities,
            profiles=profiles,
        )
    }
    with asdf_alone(), asdf.AsdfFile(tree, version=STANDARD) as file:
        file.write_to(path)


@contextmanager
def asdf_alone() -> Iterator[None]:
    """Let asdf write with what it brings itself.

    Before it writes anything it loads all that other packages plug into it, which where the readers are
    installed is seconds of imports, and nothing of theirs is used here. It has no switch for that.
    """
    every = _entry_points.entry_points

    def own(group: str) -> list[Any]:
        return [one for one in every(group=group) if one.dist.name.replace("_", "-") in _OWN]

    # In a context of its own: what is found here is not what a reader in this process gets.
    with asdf.config_context():
        _entry_points.entry_points = own
        try:
            yield
        finally:
            _entry_points.entry_points = every


def _inventory(request: Level2Request, contents: Contents, steps: Steps) -> dict[str, Any]:
    lines = [part.line for part in contents.lines]
    return {
        "inversionId": request.inversion_id,
        "created": time(request.created_at),
        "proposalId": request.proposal_id,
        "observingProgramExecutionId": request.op_id,
        "instrumentProgramExecutionId": request.instrument_program_id,
        "canonicalDataset": request.canonical_dataset_id,
        "datasetIds": list(request.dataset_ids),
        "spectralLines": [line.key for line in lines],
        "wavelengths": [line.wavelength_nm for line in lines],
        "frameCount": len(steps),
        "softwareCommit": request.software_commit,
        "ruleVersion": request.rule_version,
        "isSynthetic": contents.is_synthetic,
        "isPointingFromFrames": steps.from_frames,
    }


def _quantities(
    contents: Contents, names: list[str], inventory: Node, rows: Sequence[_HEADERS], world: tuple[Node, Any]
) -> Node:
    sky, (celestial, temporal) = world
    depth = contents.log_tau
    forward = beside(
        along(depth.values, depth.delta, "", "depth", "log_tau", is_even=depth.is_even),
        sky,
    )
    depth_frame = frame(
        "frame-1.0.0",
        name="optical_depth",
        axes_type=["phys.absorption.opticalDepth"],
        naxes=1,
        axes_names=["log optical depth"],
        axes_order=[0],
        axis_physical_types=["phys.absorption.opticalDepth"],
        unit=[unit("")],
    )
    wcs = gwcs(
        [depth_frame, celestial(1), temporal(3)],
        [_PIXELS[axis] for axis in ("depth", "slit", "step")],
        forward,
    )
    shape = [1, contents.slit_pixels, contents.depths]
    items = {
        quantity.key: _dataset(names, number, shape, quantity.unit, wcs, headers, inventory)
        for number, (quantity, headers) in enumerate(zip(LEVEL2_QUANTITIES, rows, strict=True), 1)
    }
    return _collection(
        "tag:sunpy.org:ndcube/ndcollection-1.0.0", items, ["frame_y", "slit_x", "optical_depth"], 3
    )


def _profiles(
    contents: Contents, names: list[str], inventory: Node, rows: Sequence[_HEADERS], world: tuple[Node, Any]
) -> Node:
    sky, (celestial, temporal) = world
    items = {}
    for index, part in enumerate(contents.lines):
        nm: Axis = part.wavelengths
        forward = beside(
            lookup(np.arange(1.0, 5.0), "", "stokes", "stokes", method="nearest"),
            along(nm.values, nm.delta, "nm", "wavelength", "wavelength", is_even=nm.is_even),
            sky,
        )
        wcs = gwcs(
            [
                frame("stokes_frame-1.0.0", name="polarization state", axes_order=[0]),
                frame(
                    "spectral_frame-1.0.0",
                    name="wavelength",
                    axes_names=["wavelength"],
                    axes_order=[1],
                    axis_physical_types=["em.wl"],
                    unit=[unit("nm")],
                ),
                celestial(2),
                temporal(4),
            ],
            ["stokes", "wavelength", _PIXELS["slit"], _PIXELS["step"]],
            forward,
        )
        shape = [1, contents.slit_pixels, len(nm.values), 4]
        for which, what in enumerate(("orig", "fit")):
            number = 2 * index + which
            target = 1 + len(LEVEL2_QUANTITIES) + number
            made = _dataset(names, target, shape, "", wcs, rows[number], inventory)
            made["meta"] |= {
                "ion": part.line.ion,
                "wavelength": part.line.wavelength_nm,
                "profile": "original" if what == "orig" else "fit",
            }
            items[f"{part.line.key}_{what}"] = made
    # Only slit and step are shared: the lines have wavelength axes of their own.
    return _collection(
        "asdf://dkist.nso.edu/tags/profiles-0.1.0", items, ["frame_y", "slit_x", "wavelength", "stokes"], 2
    )


def _collection(tag: str, items: dict[str, Node], axes: list[str], aligned: int) -> Node:
    return node(
        tag,
        items=OrderedDict(items),  # a plain mapping is written by the alphabet
        meta={"axes": axes},
        aligned_axes=OrderedDict((key, list(range(aligned))) for key in items),
    )


def _dataset(
    names: list[str], target: int, shape: list[int], of: str, wcs: Node, headers: _HEADERS, inventory: Node
) -> Node:
    data = node(
        "asdf://dkist.nso.edu/tags/file_manager-1.0.0",
        datatype="float32",
        fileuris=names,
        shape=shape,
        target=target,
    )
    return node(
        "asdf://dkist.nso.edu/tags/dataset-1.2.0",
        unit=unit(_vounit(of)),
        data=data,
        wcs=wcs,
        meta={"inventory": inventory, "headers": table(headers)},
    )


def _vounit(fits_unit: str) -> str:
    """``N/m^2`` of FITS as ``N.m**-2``."""
    if "/" not in fits_unit:
        return fits_unit
    above, below = fits_unit.split("/")
    base, _, power = below.partition("^")
    return f"{above}.{base}**-{power or 1}"


def _sky(steps: Steps) -> Node:
    """From slit pixel and step to longitude, latitude and seconds since the first step.

    The model of the readers takes the pixels across and along the slit, and the step as the index of its
    tables; pixels count from 0. A file has one pixel across the slit, which here is the step itself, so the
    reference pixel moves along with it.
    """
    solar = steps.solar
    number = np.arange(len(steps), dtype=float)
    swapped = [1, 0]  # the tables of the readers have longitude, which lies across the slit, first
    crpix = np.stack([solar.crpix[:, 1] - 1 + number, solar.crpix[:, 0] - 1], -1)
    pointing = chain(
        _asymmetric(["slit", "step"], ["step", "slit"], [1, 0], [0], forward_n_inputs=2),
        _asymmetric(
            ["step", "slit"],
            ["x", "y", "z"],
            [0, 1, 0],
            [1],
            forward_n_inputs=2,
            backward_n_inputs=2,
            name="SlitMapping",
        ),
        dkist_model(
            "varying_celestial_transform-1.1.0",
            ["x", "y", "z"],
            ["lon", "lat"],
            cdelt=quantity(solar.cdelt[swapped], f"{solar.unit}.pixel**-1"),
            crpix=quantity(crpix, "pixel"),
            crval_table=quantity(solar.crval[:, swapped], solar.unit),
            pc_table=quantity(np.ascontiguousarray(solar.pc[:, swapped][:, :, swapped]), "pixel"),
            lon_pole=quantity(solar.lonpole, "deg"),
            projection=transform("gnomonic-1.2.0", ["x", "y"], ["phi", "theta"], direction="pix2sky"),
        ),
    )
    seconds = np.array([(steps.middle(step) - steps.middle(0)).total_seconds() for step in range(len(steps))])
    return dkist_model(
        "coupled_compound_model-1.0.0",
        ["slit", "step"],
        ["lon", "lat", "time"],
        forward=[pointing, lookup(seconds, "s", "step", "time")],
        shared_inputs=1,
    )


def _asymmetric(
    inputs: list[str], outputs: list[str], forward: list[int], backward: list[int], **content: Any
) -> Node:
    return dkist_model(
        "asymmetric_mapping_model-1.0.0",
        inputs,
        outputs,
        forward_mapping=forward,
        backward_mapping=backward,
        **content,
    )


def _celestial_and_time(steps: Steps) -> tuple[Any, Any]:
    """Makers of the frames for sky and time, given the number of their first axis."""
    reference = _helioprojective(steps.middle(0))
    kinds = ["pos.helioprojective.lon", "pos.helioprojective.lat"]

    def celestial(first: int) -> Node:
        return frame(
            "celestial_frame-1.0.0",
            name="helioprojective",
            reference_frame=reference,
            naxes=2,
            axes_names=kinds,
            axes_order=[first, first + 1],
            axis_physical_types=[f"custom:{kind}" for kind in kinds],
            unit=[unit("arcsec"), unit("arcsec")],
        )

    def temporal(first: int) -> Node:
        return frame(
            "temporal_frame-1.0.0",
            name="temporal",
            axes_names=["time"],
            axes_order=[first],
            axis_physical_types=["time"],
            reference_frame=time(steps.middle(0)),
            unit=[unit("s")],
        )

    return celestial, temporal


def _helioprojective(moment: datetime) -> Node:
    """Coordinates as seen from the earth's centre: the telescope's place on it is 6400 km of 150 million."""
    x, y, z = _earth_from_sun_m(moment)
    radius = quantity(_RSUN_KM, "km")
    place = node(
        "tag:astropy.org:astropy/coordinates/representation-1.0.0",
        type="CartesianRepresentation",
        components={"x": quantity(x, "m"), "y": quantity(y, "m"), "z": quantity(z, "m")},
    )
    observer = node(
        "tag:sunpy.org:sunpy/coordinates/frames/heliographic_stonyhurst-1.1.0",
        data=place,
        frame_attributes={"obstime": time(moment), "rsun": radius},
    )
    return node(
        "tag:sunpy.org:sunpy/coordinates/frames/helioprojective-1.0.0",
        frame_attributes={"observer": observer, "obstime": time(moment), "rsun": radius},
    )


def _earth_from_sun_m(moment: datetime) -> tuple[float, float, float]:
    """The earth in Stonyhurst heliographic coordinates, in which its longitude is 0 by definition."""
    import erfa

    day, fraction = erfa.dtf2d(
        "UTC", moment.year, moment.month, moment.day, moment.hour, moment.minute, float(moment.second)
    )
    # UTC in place of TDB: in a minute the earth moves by a hundred thousandth of its distance.
    earth = np.asarray(erfa.epv00(day, fraction)[0]["p"], dtype=float)
    alpha, delta = (math.radians(angle) for angle in _SUN_POLE)
    pole = np.array([math.cos(delta) * math.cos(alpha), math.cos(delta) * math.sin(alpha), math.sin(delta)])
    distance = float(np.linalg.norm(earth))
    sine = float(earth @ pole) / distance
    metres = distance * _AU_M
    return metres * math.sqrt(1.0 - sine**2), 0.0, metres * sine
