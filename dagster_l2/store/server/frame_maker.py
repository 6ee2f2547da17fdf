"""Make the level-1 frames of ViSP datasets, in a process of its own: ``python -m …frame_maker``.

The observatory's own simulator says what a frame is; here its headers are told what the dataset's record
says. It runs apart because it takes seconds to import, prints remarks and draws from global chance. Which
datasets have frames, and how they are served, is in ``frames``.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.utils import iers
from dkist_data_simulator.dataset import Omit, key_function
from dkist_data_simulator.spec214.core import StatsMixin
from dkist_data_simulator.spec214.visp import SimpleVISPDataset

from dagster_l2.base.files import write_json
from dagster_l2.store.server.frame_plan import FramePlan, frame_plan
from dagster_l2.store.server.frame_scene import Scene

_SLIT_PIXELS = 48
_WAVELENGTHS = 160
_SLIT_WIDTH_ARCSEC = 0.0536
_STATISTICS = (
    "DATAMIN", "DATAMAX", "DATAMEAN", "DATAMEDN", "DATARMS", "DATAKURT", "DATASKEW", "DATAP<pp>",
)  # fmt: skip


class Frames(StatsMixin, SimpleVISPDataset):  # type: ignore[misc]
    """The frames of one dataset, as its record describes them."""

    name = None

    def __init__(self, plan: FramePlan) -> None:
        self.plan = plan
        low, high = plan.wavelengths_nm
        self._wavelengths = np.linspace(low, high, _WAVELENGTHS)
        self._scene = Scene(_seed_of(plan.op_id), plan.width, plan.height)
        self._kept: dict[tuple[str, int], Any] = {}
        super().__init__(
            1,
            plan.steps,
            len(plan.stokes),
            plan.cadence_s,
            linewave=(low + high) / 2 * u.nm,
            detector_shape=(_WAVELENGTHS, _SLIT_PIXELS),
            raster_step=plan.width / max(1, plan.steps - 1) * u.arcsec,
        )
        self.start_time = plan.start
        self.exposure_time = timedelta(milliseconds=plan.exposure_ms)
        for key, value in plan.constants().items():
            if value is None:
                self.add_remove_key(key)
            else:
                self.add_constant_key(key, value)
        self.add_constant_key("VSPWID", _SLIT_WIDTH_ARCSEC)
        self.add_constant_key("VSPNSTP", plan.steps)
        for key in plan.each_frame(0):
            self._fixed_keys.pop(key, None)
            self._generator_functions[key] = lambda frames, key: frames.plan.each_frame(frames.index)[key]

    def _once_per(self, what: str, index: int, make: Any) -> Any:
        """The simulator asks for each key alone; what keys or frames share is made once."""
        if (what, index) not in self._kept:
            self._kept[what, index] = make()
        return self._kept[what, index]

    @property
    def step(self) -> int:
        """Which position of the slit, from 0."""
        return int(self.file_index[-1])

    @property
    def observer(self) -> Any:
        """Where the telescope is; the same for the Stokes parameters of one step."""
        return self._once_per("observer", self.step, lambda: SimpleVISPDataset.observer.fget(self))

    @property
    def data(self) -> Any:
        """Counts ``[1, wavelength, slit]``."""

        def make() -> Any:
            column = self.step / max(1, self.plan.steps - 1)
            stokes = self.plan.stokes[self.index // self.plan.steps]
            return self._scene.profiles(stokes, column, self._wavelengths, _SLIT_PIXELS)[None]

        return self._once_per("data", self.index, make)

    # The simulator's own keys are in degrees and metres, which real frames are not.
    @key_function("WCSAXES", "CRPIX<n>", "CRVAL<n>", "CDELT<n>", "CUNIT<n>", "CTYPE<n>")
    def wcs_keys(self, key: str) -> Any:
        """The world coordinates: along the slit, wavelength, and across it."""
        low, high = self.plan.wavelengths_nm
        x, y = self.plan.centre
        axes = (
            (_SLIT_PIXELS, y, self.plan.height / (_SLIT_PIXELS - 1), "arcsec", "HPLT-TAN"),
            (_WAVELENGTHS, (low + high) / 2, (high - low) / (_WAVELENGTHS - 1), "nm", "AWAV"),
            (self.plan.steps, x, self.raster_step.to_value(u.arcsec), "arcsec", "HPLN-TAN"),
        )
        if key == "WCSAXES":
            return len(axes)
        count, value, delta, unit, kind = axes[int(key[-1]) - 1]
        centre = (count + 1) / 2 - (self.step if key == "CRPIX3" else 0)
        return {"CRPIX": centre, "CRVAL": value, "CDELT": delta, "CUNIT": unit, "CTYPE": kind}[key[:-1]]

    @key_function("PC<i>_<j>")
    def pc_keys(self, key: str) -> float:
        """No rotation."""
        return float(key[2] == key[-1])

    @key_function("LONPOLE")
    def wcs_set_keys(self, _key: str) -> float:
        """The default of a TAN projection."""
        return 180.0

    @key_function("DATE-BEG", "DATE-AVG", "DATE-END", "DATEREF", "TELAPSE")
    def date_obs(self, key: str) -> Any:
        """When the frame was taken; the Stokes parameters of a step come from the same exposures."""
        begin = self.plan.begin(self.step)
        if key == "TELAPSE":
            return self.exposure_time.total_seconds()
        share = {"DATE-END": 1.0, "DATE-AVG": 0.5}.get(key, 0.0)
        return _text(begin + share * self.exposure_time)

    @key_function(*_STATISTICS)
    def stats(self, key: str) -> Any:
        """Statistics of the pixels, as plain numbers."""
        value = StatsMixin.stats(self, key)
        return value if isinstance(value, Omit) else float(value)


def make_dataset(record: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Write the frames of one dataset into ``folder`` and say what they are, in order.

    The same record gives the same bytes.
    """
    plan = frame_plan(dict(record))
    with _seeded(plan.dataset_id):
        frames = Frames(plan)
        out = []
        for _ in frames:
            number = frames.index
            if not plan.is_kept(number):
                continue
            path = folder / plan.file_name(number)
            _write(frames.hdu(rice_compress=True), path, plan.header_created)
            out.append({"number": number, "size": path.stat().st_size})
    return out


def _write(hdu: fits.CompImageHDU, path: Path, moment: str) -> None:
    """The checksums say when they were made, so they are added by hand, with a moment that stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hdu.writeto(path, overwrite=True)
    with fits.open(path, mode="update", disable_image_compression=True) as hdus:
        for part in hdus:
            part.add_checksum(when=f"updated {moment}")


@contextmanager
def _seeded(dataset_id: str) -> Iterator[None]:
    """Chance of its own for each dataset: the simulator draws from three generators, none handed to it."""
    seed = _seed_of(dataset_id)
    random.seed(seed)
    make = np.random.default_rng
    with mock.patch.object(
        np.random, "default_rng", lambda given=None: make(seed if given is None else given)
    ):
        yield


def _seed_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")


def main(argv: Sequence[str]) -> None:
    """Read an order, ``{"datasets": [{"record", "folder", "listing", "plan"}]}``, and make what it says."""
    # The telescope's place to a few metres needs no newer table of the earth's rotation from the net.
    iers.conf.auto_download, iers.conf.iers_degraded_accuracy = False, "ignore"
    order = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    for dataset in order["datasets"]:
        made = make_dataset(dataset["record"], Path(dataset["folder"]))
        # Last, and by one rename: what has a listing is whole.
        write_json(Path(dataset["listing"]), {"plan": dataset["plan"], "frames": made}, indent=None)


if __name__ == "__main__":
    main(sys.argv[1:])
