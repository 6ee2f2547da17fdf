"""Reading a FITS file that came from outside: plane by plane, and never an exception that is not a reason.

Here: opening, completeness, sections of the data, header values. What must be in the files is in ``verify``.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from astropy.io import fits

MAGIC = b"SIMPLE  ="
_OF_THE_SYSTEM = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.ENOTCONN,
    errno.ENODEV,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
}


class Unreadable(Exception):
    """A file cannot be read as FITS; the message goes on after the file's name."""


class OpenProduct:
    """One open FITS file, its headers read, its data still on disk."""

    def __init__(self, hdus: fits.HDUList) -> None:
        self._hdus = hdus

    @property
    def hdu_count(self) -> int:
        """Primary and extensions together."""
        return len(self._hdus)

    def shape(self, index: int = 0) -> tuple[int, ...] | None:
        """The shape of an image in numpy's order; empty without data, None for what is not an image."""
        hdu = self._hdus[index]
        return tuple(int(length) for length in hdu.shape) if hdu.is_image else None

    def header(self, keyword: str) -> Any:
        """A value of the primary header, or None."""
        return self._hdus[0].header.get(keyword)

    def plane(self, first: int, second: int) -> np.ndarray[Any, Any]:
        """The ``[y, x]`` plane of the primary data at two leading indices; nothing else is read."""
        return np.asarray(self._hdus[0].section[first, second])

    def vector(self, index: int) -> np.ndarray[Any, Any]:
        """The data of a one-dimensional extension."""
        return np.asarray(self._hdus[index].data)


def is_of_the_system(error: OSError) -> bool:
    """Whether the disk, the share or the machine failed, and not the file or its rights."""
    return error.errno in _OF_THE_SYSTEM


@contextmanager
def open_product(path: Path, findings: list[str]) -> Iterator[OpenProduct]:
    """Open a FITS file that may be anything.

    Parameters
    ----------
    findings
        Receives what astropy warned about while the file was open, one sentence each.

    Raises
    ------
    Unreadable
        Missing, not FITS, truncated, or damaged so that astropy gives up, here or inside the ``with`` block.
    OSError
        The disk or the share gives up, which says nothing of the file.
    """
    from astropy.io import fits  # half a second, which only a hand-over should pay

    _check_start(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            # Memory mapping off: `section` reads just its part of the file, and a file that is cut while
            # mapped would end the process with SIGBUS instead of an exception. Opened here, since astropy
            # leaves a file open whose headers it cannot parse.
            with path.open("rb") as file, fits.open(file, memmap=False, lazy_load_hdus=True) as hdus:
                _check_complete(hdus, path.stat().st_size)
                yield OpenProduct(hdus)
        except (Unreadable, KeyboardInterrupt):
            raise
        except OSError as error:
            if is_of_the_system(error):
                raise
            raise Unreadable(f"cannot be read as FITS ({_one_line(error)})") from error
        # Everything: what astropy raises on damaged bytes is not a closed list.
        except Exception as error:
            raise Unreadable(f"cannot be read as FITS ({_one_line(error)})") from error
        finally:
            found = dict.fromkeys(f"{path.name}: {_one_line(warning.message)}" for warning in caught)
            findings.extend(text for text in found if text not in findings)


def _check_start(path: Path) -> None:
    # A regular file only: opening a pipe would wait for ever. The magic keeps astropy from
    # unpacking archives.
    if not path.exists():
        raise Unreadable("is missing")
    if not path.is_file():
        raise Unreadable("is not a file")
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        if is_of_the_system(error):
            raise
        raise Unreadable(f"cannot be opened ({error.strerror or error})") from error
    if not start:
        raise Unreadable("is empty")
    if start != MAGIC:
        raise Unreadable("is not a FITS file")


def _check_complete(hdus: fits.HDUList, size: int) -> None:
    for hdu in hdus:
        place = hdu.fileinfo()
        # The last block may lack its padding, the data themselves not: datSpan counts the padding.
        end = int(place["datLoc"]) + int(hdu.size)
        if end > size:
            raise Unreadable(f"is truncated: {size} bytes of at least {end}")


def _one_line(message: object) -> str:
    text = " ".join(str(message).split()).rstrip(".")
    return (text[:197] + "...") if len(text) > 200 else text or type(message).__name__
