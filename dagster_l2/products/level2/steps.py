"""Where and when each step of the slit was: from the level-1 frames, or else from the record alone.

Here: the pointing of the steps as numbers. How FITS and ASDF say it is in the modules beside this one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from dagster_l2.products.level2.layout import Level2Refused, Level2Request

Array = np.ndarray[Any, np.dtype[Any]]

_SUN_ARCSEC = 2000.0  # no slit points further out
_BOX = re.compile(r"\(([^,()]+),([^,()]+)\),\(([^,()]+),([^,()]+)\)")
_PLACE = ("VSPMAP", "VSPSTP")  # map and step of the raster
# What a level-2 header takes over from the level-1 frame of its step.
LIFTED = (
    "OBJECT", "TELAPSE", "TAZIMUTH", "ELEV_ANG", "TELTRACK", "TELSCAN", "TTBLTRCK", "TTBLANGL", "DATEREF",
    "OBSGEO-X", "OBSGEO-Y", "OBSGEO-Z", "ROTCOMP", "OBS_VR", "DKISTVER", "DSP_ID", "HLSVERS", "OCS_CTRL",
    "FIDO_CFG", "DSHEALTH", "LIGHTLVL", "ATMOS_R0", "AO_LOCK",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Celestial:
    """A pair of celestial axes: along the slit and across it, in FITS terms.

    Parameters
    ----------
    names, unit
        ``CTYPE`` along and across the slit, and ``CUNIT`` of both.
    cdelt
        ``[2]``: per pixel of the products along the slit, and per step across it.
    crpix, crval
        ``[step, 2]``, along and across. A FITS file holds one step: its pixel across the slit is 1.
    pc
        ``[step, 2, 2]``.
    lonpole
        In degrees.
    """

    names: tuple[str, str]
    unit: str
    cdelt: Array
    crpix: Array
    crval: Array
    pc: Array
    lonpole: float


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a map, in order.

    Parameters
    ----------
    begins, ends
        When each was taken, UTC.
    solar
        Helioprojective coordinates in arcsec.
    equatorial
        Right ascension and declination, where the frames have them.
    from_frames
        Whether all this comes from the level-1 frames; otherwise it is as good as the record's box and times.
    lifted
        Per step, what else its frame says.
    """

    begins: tuple[datetime, ...]
    ends: tuple[datetime, ...]
    solar: Celestial
    equatorial: Celestial | None
    from_frames: bool
    lifted: tuple[Mapping[str, Any], ...] = field(default=())

    def __len__(self) -> int:
        return len(self.begins)

    def middle(self, step: int) -> datetime:
        """The middle of the exposure of a step, UTC."""
        return self.begins[step] + (self.ends[step] - self.begins[step]) / 2


def steps_of(request: Level2Request, frames: Sequence[Path], steps: int, slit_pixels: int) -> Steps:
    """The steps of products that have ``steps`` along y and ``slit_pixels`` along x.

    Parameters
    ----------
    frames
        Level-1 frames of the canonical dataset, in any order; may be empty.

    Notes
    -----
    The products cover the whole slit, so their pixels are bins of the frames' pixels. The frames are taken
    when there are as many steps as in the products or one more: the inversion may miss the last one.
    """
    headers = _headers_by_step(frames)
    if steps <= len(headers) <= steps + 1:
        made = _from_headers(headers[:steps], slit_pixels)
        if made is not None:
            return made
    return _from_record(request, steps, slit_pixels)


def _headers_by_step(frames: Sequence[Path]) -> list[Mapping[str, Any]]:
    """One header per step, in order: that of its earliest frame, with the end of its last one.

    The Stokes parameters of a step are taken at once or follow each other, so its place in the raster tells
    the frames of a step; where no frame says it, they are taken at once.
    """
    from astropy.io import fits

    headers: list[dict[str, Any]] = []
    for path in sorted(frames):
        try:
            # The table that holds a compressed image has all its keywords; nothing is unpacked for them.
            with fits.open(path, disable_image_compression=True, memmap=False) as hdus:
                header = hdus[-1].header
                headers.append({**dict(header), "DATE-BEG": str(header["DATE-BEG"])})
        except (OSError, KeyError) as error:
            raise Level2Refused(
                f"The frame {path} cannot be read or has no time ({error}); stage the frames again."
            ) from error
    has_places = all(word in header for header in headers for word in _PLACE)
    steps: dict[Any, dict[str, Any]] = {}
    for header in sorted(headers, key=lambda header: header["DATE-BEG"]):
        place = tuple(header[word] for word in _PLACE) if has_places else header["DATE-BEG"]
        step = steps.setdefault(place, header)
        if "DATE-END" in step and "DATE-END" in header:
            step["DATE-END"] = max(str(step["DATE-END"]), str(header["DATE-END"]))
    return list(steps.values())


def _from_headers(headers: list[Mapping[str, Any]], slit_pixels: int) -> Steps | None:
    """None when the headers do not say where the slit was."""
    solar = _celestial(headers, "", ("HPLT", "HPLN"), slit_pixels)
    if solar is None:
        return None
    return Steps(
        begins=tuple(_time(header["DATE-BEG"]) for header in headers),
        ends=tuple(_time(header.get("DATE-END", header["DATE-BEG"])) for header in headers),
        solar=solar,
        equatorial=_celestial(headers, "A", ("DEC-", "RA--"), slit_pixels),
        from_frames=True,
        lifted=tuple(
            {keyword: header[keyword] for keyword in LIFTED if keyword in header} for header in headers
        ),
    )


def _celestial(
    headers: list[Mapping[str, Any]], alternate: str, kinds: tuple[str, str], slit_pixels: int
) -> Celestial | None:
    from astropy import units as u

    first = headers[0]
    axes = [_axis_of(first, alternate, kind) for kind in kinds]
    if None in axes:
        return None
    along, across = axes

    def of(name: str, *axis: int | None) -> Array:
        keyword = f"{name}{'_'.join(map(str, axis))}{alternate}"
        default = float(len(set(axis)) == 1) if name == "PC" else math.nan
        return np.array([float(header.get(keyword, default)) for header in headers])

    unit = "arcsec" if not alternate else "deg"
    factor = [u.Unit(str(first[f"CUNIT{axis}{alternate}"])).to(unit) for axis in (along, across)]
    length = first.get(f"ZNAXIS{along}", first.get(f"NAXIS{along}"))
    bin_size = float(length) / slit_pixels if length else math.nan
    pc = np.stack([np.stack([of("PC", i, j) for j in (along, across)], -1) for i in (along, across)], -2)
    # A pixel along the slit is `bin_size` pixels of the frames; what turns one axis into the other follows.
    pc[:, 0, 1] /= bin_size
    pc[:, 1, 0] *= bin_size
    made = Celestial(
        names=(str(first[f"CTYPE{along}{alternate}"]), str(first[f"CTYPE{across}{alternate}"])),
        unit=unit,
        cdelt=np.array([of("CDELT", along)[0] * factor[0] * bin_size, of("CDELT", across)[0] * factor[1]]),
        crpix=np.stack([(of("CRPIX", along) - 0.5) / bin_size + 0.5, of("CRPIX", across)], -1),
        crval=np.stack([of("CRVAL", along) * factor[0], of("CRVAL", across) * factor[1]], -1),
        pc=pc,
        lonpole=float(first.get(f"LONPOLE{alternate}", 180.0)),
    )
    numbers = (made.cdelt, made.crpix, made.crval, made.pc)
    return made if all(np.isfinite(part).all() for part in numbers) and made.cdelt.all() else None


def _axis_of(header: Mapping[str, Any], alternate: str, kind: str) -> int | None:
    return next(
        (axis for axis in range(1, 6) if str(header.get(f"CTYPE{axis}{alternate}", "")).startswith(kind)),
        None,
    )


def _from_record(request: Level2Request, steps: int, slit_pixels: int) -> Steps:
    """Steps evenly across the box from west to east of it, as nothing says otherwise, and evenly in time."""
    left, bottom, right, top = _corners(request.bounding_box)
    width, height = right - left, top - bottom
    across = left + (np.arange(steps) + 0.5) / steps * width
    each = max((request.end_time - request.start_time) / steps, timedelta())
    begins = [request.start_time + step * each for step in range(steps)]
    return Steps(
        begins=tuple(begins),
        ends=tuple(begin + each for begin in begins),
        solar=Celestial(
            names=("HPLT-TAN", "HPLN-TAN"),
            unit="arcsec",
            cdelt=np.array([height / slit_pixels or 1.0, width / steps or 1.0]),
            crpix=np.tile([(slit_pixels + 1) / 2, 1.0], (steps, 1)),
            crval=np.stack([np.full(steps, (bottom + top) / 2), across], -1),
            pc=np.tile(np.eye(2), (steps, 1, 1)),
            lonpole=180.0,
        ),
        equatorial=None,
        from_frames=False,
        lifted=tuple({} for _ in range(steps)),
    )


def _corners(box: str | None) -> tuple[float, float, float, float]:
    """Left, bottom, right and top in arcsec; a box that cannot be meant is a point at the sun's centre."""
    match = _BOX.fullmatch("".join(box.split())) if box else None
    try:
        x1, y1, x2, y2 = (float(match[number]) if match else 0.0 for number in range(1, 5))
    except ValueError:
        return 0.0, 0.0, 0.0, 0.0
    if not all(abs(value) < _SUN_ARCSEC for value in (x1, y1, x2, y2)):
        return 0.0, 0.0, 0.0, 0.0
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _time(text: Any) -> datetime:
    return datetime.fromisoformat(str(text)).replace(tzinfo=None)
