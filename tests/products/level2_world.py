"""Small products of one inversion, and level-1 frames that say where its steps were."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asdf
import dkist
import numpy as np
from astropy.io import fits

from dagster_l2.products import Level2Request, SyntheticShape, write_products

OP, INVERSION, PROPOSAL = "eid_1_118_opAvoqBr_R001.82591.13964206", "inv.ABC123", "pid_1_118"
LINES = ["Fe I (630.15 nm)", "Ca II (854.21 nm)"]
SHAPE = SyntheticShape(depth=5, wavelengths=12, y=4, x=6)
START = datetime(2024, 4, 17, 20, 25, 26, 516_000)
CADENCE = timedelta(seconds=2.8)
EXPOSURE = timedelta(seconds=0.4)
SLIT_PIXELS = 3 * SHAPE.x  # three pixels of the frames make one of the products

COMMIT = "c0ffee1" * 5 + "c0ffe"  # as long as a hash of git is


def request(**changes: Any) -> Level2Request:
    said: dict[str, Any] = {
        "inversion_id": INVERSION,
        "op_id": OP,
        "proposal_id": PROPOSAL,
        "experiment_id": "eid_1_118",
        "instrument_program_id": "id.82591.123456",
        "instrument": "VISP",
        "dataset_ids": ("AAAAA", "BBBBB"),
        "canonical_dataset_id": "AAAAA",
        "start_time": START,
        "end_time": START + SHAPE.y * CADENCE,
        "bounding_box": "(59.93,-872.63),(-56.05,-991.35)",
        "created_at": datetime(2025, 9, 3, 19, 16, 58),
        "software_commit": COMMIT,
        "rule_version": "r1",
    }
    return Level2Request(**{**said, **changes})


def products(folder: Path, shape: SyntheticShape = SHAPE) -> Path:
    return write_products(folder, op_id=OP, inversion_id=INVERSION, lines=LINES, seed=1, shape=shape)


def opened(path: Path) -> Any:
    """What ``dkist`` makes of the files, having held every node against its schema."""
    with asdf.config_context() as config:
        config.validate_on_read = True
        return dkist.load_dataset(path)


def frames(folder: Path, steps: int) -> list[Path]:
    """Two Stokes parameters per step; the slit is tilted, and walks in the reference value and the pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for stokes in "IV":
        for step in range(steps):
            path = folder / f"VISP_{stokes}_{step:03}.fits"
            image = np.zeros((1, 4, SLIT_PIXELS), dtype=np.float32)
            hdu = fits.CompImageHDU(image, _header(step), compression_type="RICE_1")
            fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
            made.append(path)
    return made


def _header(step: int) -> fits.Header:
    begin = START + step * CADENCE
    header = fits.Header()
    header.update(
        {
            "DATE-BEG": begin.isoformat(timespec="microseconds"),
            "DATE-END": (begin + EXPOSURE).isoformat(timespec="microseconds"),
            "WCSAXES": 3,
            "LONPOLE": 180.0,
            "OBJECT": "sunspot",
            "ATMOS_R0": 0.09 + step / 100,
            "AO_LOCK": True,
        }
    )
    axes = {
        1: ("HPLT-TAN", "arcsec", 9.25, -900.0 + 0.01 * step, 0.5),
        2: ("AWAV", "nm", 2.0, 630.2, 0.001),
        3: ("HPLN-TAN", "arcsec", 2.5 - step, 100.0 + 0.02 * step, 0.2),
    }
    for axis, (kind, unit, crpix, crval, cdelt) in axes.items():
        header.update(
            {
                f"CTYPE{axis}": kind,
                f"CUNIT{axis}": unit,
                f"CRPIX{axis}": crpix,
                f"CRVAL{axis}": crval,
                f"CDELT{axis}": cdelt,
            }
        )
    tilt = np.radians(20.0 + step)
    pc = {(1, 1): np.cos(tilt), (1, 3): 0.4 * np.sin(tilt), (3, 1): -2.5 * np.sin(tilt), (3, 3): np.cos(tilt)}
    for i in range(1, 4):
        for j in range(1, 4):
            header[f"PC{i}_{j}"] = float(pc.get((i, j), i == j))
    return header
