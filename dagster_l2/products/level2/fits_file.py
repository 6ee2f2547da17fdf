"""One FITS file per step of the slit: a primary header, the quantities, then each line observed and fitted.

Here: headers and HDUs. Where the step was is in ``steps``, its arrays in ``contents``.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dagster_l2.products.layout import INVERSION_KEYWORD, OP_KEYWORD, SYNTHETIC_KEYWORD, header_text
from dagster_l2.products.level2.contents import Axis, Contents, StepArrays
from dagster_l2.products.level2.layout import LEVEL2_QUANTITIES, PROFILE_KIND, Level2Request
from dagster_l2.products.level2.steps import Celestial, Steps

if TYPE_CHECKING:
    from astropy.io import fits

Array = np.ndarray[Any, np.dtype[Any]]
Header = dict[str, Any]

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "level2.dkist.nso.edu")
_CONSTANTS: Header = {
    "ORIGIN": "National Solar Observatory",
    "TELESCOP": "Daniel K. Inouye Solar Telescope",
    "OBSRVTRY": "Haleakala High Altitude Observatory Site",
    "NETWORK": "NSF-DKIST",
    "TIMESYS": "UTC",
    "SOLARNET": 0.5,
    "PROCTYPE": "L2",
    "LEVEL": 2,
    "NPROPOS": 1,
    "NEXPERS": 1,
}
# Of the 80 characters of a card, without keyword, "= " and " / ".
_VALUE_AND_COMMENT = 67
_COMMENTS = {
    "DSETID": "the inversion",
    "NL1DSET": "level-1 datasets that were inverted",
    "CANONDS": "level-1 dataset whose frames place the steps",
    "INVSOFT": "commit of the inversion",
    "RULEVERS": "rules that found it invertible",
    "STEPNUM": "step of the slit, from 1",
    "NSTEPS": "steps of the slit",
    SYNTHETIC_KEYWORD: "made up, not inverted from data",
    "WCSVALID": "F: evenly across the box of the record",
    "SPECPFIN": "ion of the line",
    "SPECPFTP": "observed (Original) or fitted (Fit)",
}


def primary_header(request: Level2Request, contents: Contents, steps: Steps, step: int, name: str) -> Header:
    """What the primary header of one step says; values only, in the order of their importance."""
    header: Header = {
        **_CONSTANTS,
        "INSTRUME": request.instrument,
        "FILENAME": name,
        "FILE_ID": str(uuid.uuid5(_NAMESPACE, f"{request.inversion_id}/{name}")),
        "DATE": moment(request.created_at),
        "DATE-BEG": moment(steps.begins[step]),
        "DATE-AVG": moment(steps.middle(step)),
        "DATE-END": moment(steps.ends[step]),
        # As the observatory's example has it: the data set of a level-2 frame is the inversion.
        "DSETID": request.inversion_id,
        INVERSION_KEYWORD: request.inversion_id,
        OP_KEYWORD: request.op_id,
        "IP_ID": request.instrument_program_id,
        "PROP_ID": request.proposal_id,
        "PROPID01": request.proposal_id,
        "EXPER_ID": request.experiment_id,
        "EXPRID01": request.experiment_id,
        "NL1DSET": len(request.dataset_ids),
        **{f"L1DSET{number:02}": name for number, name in enumerate(request.dataset_ids, 1)},
        "CANONDS": request.canonical_dataset_id,
        "INVSOFT": request.software_commit,
        "RULEVERS": request.rule_version,
        "STEPNUM": step + 1,
        "NSTEPS": len(steps),
        SYNTHETIC_KEYWORD: contents.is_synthetic,
        **steps.lifted[step],
    }
    texts = {key: header_text(value) if isinstance(value, str) else value for key, value in header.items()}
    return {key: value for key, value in texts.items() if value is not None}


def quantity_headers(
    request: Level2Request, contents: Contents, steps: Steps, step: int, arrays: StepArrays
) -> list[Header]:
    """The headers of the quantities of one step, in the order of `LEVEL2_QUANTITIES`."""
    world = _world(steps, step, [("LOGTAU", "", contents.log_tau)])
    return [
        {**_data_keys(request, quantity.title, quantity.kind, quantity.unit, array), **world}
        for quantity, array in zip(LEVEL2_QUANTITIES, arrays.quantities, strict=True)
    ]


def profile_headers(
    request: Level2Request, contents: Contents, steps: Steps, step: int, arrays: StepArrays
) -> list[Header]:
    """The headers of the profiles of one step: each line observed, then fitted."""
    out = []
    for part, observed, fitted in zip(contents.lines, arrays.observed, arrays.fitted, strict=True):
        stokes = Axis(np.arange(1.0, 5.0))
        world = _world(steps, step, [("STOKES", "", stokes), ("AWAV", "nm", part.wavelengths)])
        for what, array in (("Original", observed), ("Fit", fitted)):
            title = f"{part.line.ion} {part.line.wavelength_nm:.2f} Profile {what}"
            out.append(
                {
                    **_data_keys(request, title, PROFILE_KIND, "", array),
                    "SPECPFIN": part.line.ion,
                    "SPECPFTP": what,
                    **world,
                }
            )
    return out


class FitsWriter:
    """Writes one step after the other; what a header shares with the one before is made once.

    Making every card anew takes three times as long, and a real map has 400 steps of 17 HDUs.
    """

    def __init__(self) -> None:
        self._hdus: fits.HDUList | None = None
        self._before: list[Header] = []

    def write(self, path: Path, primary: Header, headers: Sequence[Header], arrays: StepArrays) -> None:
        """Write one step; the first axis of every array, across the slit, has the length one."""
        pairs = zip(arrays.observed, arrays.fitted, strict=True)
        data = [*arrays.quantities, *(array for pair in pairs for array in pair)]
        hdus = self._with_headers([primary, *headers])
        for hdu, array in zip(hdus[1:], data, strict=True):
            hdu.data = np.ascontiguousarray(array[None], dtype=np.float32)
        for hdu in hdus:
            hdu.add_checksum(when=f"of {primary['DATE']}")
        # Verifying each file again would take a third of the time; the tests hold that files of ours pass.
        hdus.writeto(path, output_verify="ignore", overwrite=True)

    def _with_headers(self, headers: list[Header]) -> fits.HDUList:
        from astropy.io import fits

        if self._hdus is None:
            self._hdus = fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU() for _ in headers[1:])])
            self._hdus.update_extend()
            self._before = [{} for _ in headers]
        for hdu, before, now in zip(self._hdus, self._before, headers, strict=True):
            for keyword in before.keys() - now.keys():
                del hdu.header[keyword]
            for keyword, value in now.items():
                if keyword not in before or before[keyword] != value:
                    hdu.header[keyword] = (value, _comment(keyword, value))
        self._before = headers
        return self._hdus


def _comment(keyword: str, value: object) -> str:
    """The comment of a keyword, where the card has room for it beside the value."""
    comment = _COMMENTS.get(keyword, "")
    return comment if len(f"{value!r}") + len(comment) <= _VALUE_AND_COMMENT else ""


def moment(time: datetime) -> str:
    """A time as FITS has it: UTC without a zone, to the microsecond."""
    return time.replace(tzinfo=None).isoformat(timespec="microseconds")


def _data_keys(request: Level2Request, title: str, kind: str, unit: str, array: Array) -> Header:
    finite = array[np.isfinite(array)]
    extremes = {"DATAMIN": float(finite.min()), "DATAMAX": float(finite.max())} if finite.size else {}
    return {
        "EXTNAME": title,
        "BTYPE": kind,
        "BUNIT": unit,
        "DATE": moment(request.created_at),
        **extremes,
    }


def _world(steps: Steps, step: int, inner: Sequence[tuple[str, str, Axis]]) -> Header:
    """The WCS of one HDU: the inner axes, then along the slit, then across it."""
    header: Header = {"WCSVALID": steps.from_frames, "WCSNAME": "Helioprojective Cartesian"}
    header |= _world_of(steps.solar, step, inner, "")
    if steps.equatorial is not None:
        header |= {"WCSNAMEA": "Equatorial equinox J2000"}
        header |= _world_of(steps.equatorial, step, inner, "A")
    return header


def _world_of(sky: Celestial, step: int, inner: Sequence[tuple[str, str, Axis]], alternate: str) -> Header:
    count = len(inner) + 2
    header: Header = {f"WCSAXES{alternate}": count, f"LONPOLE{alternate}": sky.lonpole}
    pc = np.eye(count)
    pc[-2:, -2:] = sky.pc[step]
    axes = [(kind, unit, 1.0, float(axis.values[0]), axis.delta) for kind, unit, axis in inner]
    axes += [
        (sky.names[n], sky.unit, float(sky.crpix[step, n]), float(sky.crval[step, n]), float(sky.cdelt[n]))
        for n in range(2)
    ]
    for number, (kind, unit, crpix, crval, cdelt) in enumerate(axes, 1):
        header |= {
            f"CTYPE{number}{alternate}": kind,
            f"CUNIT{number}{alternate}": unit,
            f"CRPIX{number}{alternate}": crpix,
            f"CRVAL{number}{alternate}": crval,
            f"CDELT{number}{alternate}": cdelt,
        }
        header |= {
            f"PC{number}_{other}{alternate}": float(pc[number - 1, other - 1])
            for other in range(1, count + 1)
        }
    return header
