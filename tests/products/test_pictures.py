"""The made-up products and the picture of products."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from astropy.io import fits

from dagster_l2.products import (
    MODEL_FILE,
    PRODUCT_FILES,
    QUANTITIES,
    ProductsRefused,
    SyntheticShape,
    quicklook,
    write_products,
)

SMALL = SyntheticShape(depth=9, wavelengths=40, y=12, x=16)
LINES = ["Fe I (630.15 nm)", "Na I D2 (589.0 nm)", "no wavelength", "odd (6.3.0 nm)"]


def make(folder: Path, **changes: object) -> Path:
    arguments: dict[str, object] = {
        "op_id": "eid_1_118_op",
        "inversion_id": "inv.ABC123",
        "lines": LINES,
        "seed": 1,
        "shape": SMALL,
    }
    return write_products(folder, **{**arguments, **changes})  # type: ignore[arg-type]


def picture(folder: Path) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(quicklook(folder)), format="png")


def test_a_seed_gives_the_same_data_and_another_one_others(tmp_path: Path) -> None:
    one, same, other = make(tmp_path / "1"), make(tmp_path / "2"), make(tmp_path / "3", seed=2)
    for name in PRODUCT_FILES:
        assert (one / name).read_bytes() == (same / name).read_bytes()
        assert (one / name).read_bytes() != (other / name).read_bytes()


def test_made_up_products_are_plausible_and_say_what_they_are(tmp_path: Path) -> None:
    make(tmp_path)
    model, header = fits.getdata(tmp_path / MODEL_FILE, header=True)
    quantity = {each.name: model[index] for index, each in enumerate(QUANTITIES)}
    assert header["SYNTHET"] is True
    assert header["OBSPR_ID"] == "eid_1_118_op"
    assert header["LINE2"] == "Na I D2 (589.0 nm)"
    assert np.isfinite(model).all()
    assert 2500 < quantity["temperature"].min() < quantity["temperature"].max() < 12000
    assert 0 < quantity["magnetic strength"].min() < quantity["magnetic strength"].max() < 4000
    assert np.abs(quantity["velocity"]).max() < 1e6
    for name in ("electron pressure", "gas pressure", "density"):
        assert quantity[name].min() > 0
    assert (np.diff(quantity["gas pressure"], axis=0) < 0).all(), "pressure falls with height"
    assert (np.diff(quantity["geometric height"], axis=0) > 0).all()

    with fits.open(tmp_path / PRODUCT_FILES[1]) as fitted, fits.open(tmp_path / PRODUCT_FILES[2]) as observed:
        intensity, *polarized = fitted[0].data
        assert intensity.min() > 0
        assert all(np.abs(part).max() < intensity.max() for part in polarized)
        assert np.std(observed[0].data - fitted[0].data) == pytest.approx(1e-3, rel=0.1)
        assert sorted(set(fitted[2].data)) == [1, 2, 3, 4]
        assert fitted[1].header["BUNIT"] == "mAngstrom"


@pytest.mark.parametrize("lines", [[], ["Fe I (630.15 nm)"] * 41])
def test_lines_that_do_not_fit_are_refused(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(ValueError, match="need 1 to 40 lines"):
        make(tmp_path, lines=lines)


def test_the_picture_shows_three_different_maps(tmp_path: Path) -> None:
    image = picture(make(tmp_path))
    height, width = image.shape[:2]
    assert width > 2 * height
    thirds = [image[:, start : start + width // 3] for start in (0, width // 3, 2 * width // 3)]
    assert all(len(np.unique(third.reshape(-1, image.shape[2]), axis=0)) > 50 for third in thirds)


def test_the_picture_follows_the_data(tmp_path: Path) -> None:
    before = picture(make(tmp_path))
    with fits.open(tmp_path / MODEL_FILE, mode="update") as hdus:
        hdus[0].data[1, :, :, :8] = 4000.0
    assert not np.array_equal(before, picture(tmp_path))


@pytest.mark.parametrize("op_id", ["$\\frac{1", "a" * 300, "Ünï\n$"])
def test_an_id_from_outside_does_not_break_the_picture(tmp_path: Path, op_id: str) -> None:
    assert picture(make(tmp_path, op_id=op_id)).size


def test_missing_values_and_flat_maps_can_be_drawn(tmp_path: Path) -> None:
    make(tmp_path)
    with fits.open(tmp_path / MODEL_FILE, mode="update") as hdus:
        hdus[0].data[0] = np.nan
        hdus[0].data[1] = np.nan
        hdus[0].data[4] = 0.0
        hdus[0].data[5] = 0.0
    assert picture(tmp_path).size


@pytest.mark.parametrize(("y", "x"), [(1, 1), (200, 4), (3, 1900)])
def test_a_map_of_any_form_can_be_drawn(tmp_path: Path, y: int, x: int) -> None:
    image = picture(make(tmp_path, shape=SyntheticShape(depth=2, wavelengths=4, y=y, x=x)))
    assert max(image.shape) < 2500


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProductsRefused, match=r"inv_res_mod\.fits is missing"):
        quicklook(tmp_path)
    fits.PrimaryHDU(np.ones((4, 3, 2, 2))).writeto(tmp_path / MODEL_FILE)
    with pytest.raises(ProductsRefused, match="with 11 quantities"):
        quicklook(tmp_path)
