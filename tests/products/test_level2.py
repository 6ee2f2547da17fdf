"""Users open what was published: by ``dkist``, with the values of the products, where and when they were."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asdf
import dkist
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from sunpy.coordinates import get_earth

from dagster_l2.products import (
    FITTED_FILE,
    LEVEL2_QUANTITIES,
    MODEL_FILE,
    OBSERVED_FILE,
    QUANTITIES,
    Level2Files,
    write_level2,
)
from tests.products import level2_world as world

ARCSEC_TO_DEG = 1 / 3600


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], Level2Files]:
    folder = tmp_path_factory.mktemp("level2")
    products = world.products(folder / "products")
    frames = world.frames(folder / "frames", world.SHAPE.y + 1)  # the inversion missed the last one
    return products, frames, write_level2(products, folder / "level2", world.request(), frames)


@pytest.fixture(scope="module")
def files(made: tuple[Path, list[Path], Level2Files]) -> Level2Files:
    return made[2]


@pytest.fixture(scope="module")
def inversion(files: Level2Files) -> Any:
    return world.opened(files.folder)


def test_the_layout_is_the_observatorys(files: Level2Files) -> None:
    assert files.asdf_object_key == "pid_1_118/inv_ABC123/INV_ABC123_L2_metadata.asdf"
    assert files.names[0] == "INV_ABC123_2024_04_17T20_25_26_516_L2.fits"
    assert files.names[:-1] == sorted(files.names[:-1])
    assert len(files.names) == world.SHAPE.y + 1
    assert {path.name for path in files.folder.iterdir() if not path.name.startswith(".")} == {
        *files.names,
        "manifest.json",
    }


def test_dkist_finds_the_schema_of_level_2_kept(files: Level2Files) -> None:
    schema = Path(dkist.__file__).parent / "io/level_2_dataset_schema.yaml"
    with asdf.config_context() as config:
        config.validate_on_read = True
        with asdf.open(files.folder / files.names[-1], custom_schema=schema) as file:
            assert isinstance(file["inversion"], dkist.Inversion)


def test_quantities_are_those_of_the_products_in_their_units(
    made: tuple[Path, list[Path], Level2Files], inversion: Any
) -> None:
    assert type(inversion) is dkist.Inversion
    assert list(inversion) == [
        "optical_depth", "temperature", "electron_pressure", "microturbulence", "mag_strength", "velocity",
        "mag_inclination", "mag_azimuth", "geo_height", "gas_pressure", "density",
    ]  # fmt: skip
    model = fits.getdata(made[0] / MODEL_FILE)
    wanted = ["", "K", "N/m2", "km/s", "T", "km/s", "deg", "deg", "km", "N/m2", "kg/m3"]
    for given, quantity, dataset, unit in zip(QUANTITIES, model, inversion.values(), wanted, strict=True):
        assert dataset.unit == u.Unit(unit)
        theirs = (np.moveaxis(quantity, 0, -1) * u.Unit(given.unit)).to(dataset.unit)
        np.testing.assert_allclose(dataset.data.compute(), theirs.value, rtol=1e-6)
        headers = dataset.meta["headers"]
        assert u.Unit(headers["BUNIT"][0]) == dataset.unit
        assert headers["DATAMAX"].max() == pytest.approx(theirs.value.max())


def test_profiles_are_those_of_the_products(
    made: tuple[Path, list[Path], Level2Files], inversion: Any
) -> None:
    assert list(inversion.profiles) == ["FeI630_orig", "FeI630_fit", "CaII854_orig", "CaII854_fit"]
    points = {"FeI630": slice(0, 6), "CaII854": slice(6, 12)}
    for key, dataset in inversion.profiles.items():
        line, what = key.split("_")
        whole = fits.getdata(made[0] / (OBSERVED_FILE if what == "orig" else FITTED_FILE))
        wanted = whole[:, points[line]].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(dataset.data.compute(), wanted)


def test_the_wavelength_axis_is_in_air(made: tuple[Path, list[Path], Level2Files], inversion: Any) -> None:
    offsets = fits.getdata(made[0] / FITTED_FILE, 1).astype(float)
    for key, rest, points in (
        ("FeI630_fit", 630.15012, slice(0, 6)),
        ("CaII854_orig", 854.2091, slice(6, 12)),
    ):
        profiles = inversion.profiles[key]
        pixels = np.arange(6)
        stokes, nm, *_ = profiles.wcs.pixel_to_world_values(2, pixels, 0, 0)
        np.testing.assert_allclose(nm, rest + offsets[points] * 1e-4, rtol=0, atol=1e-8)
        assert np.unique(stokes) == 3  # the third is U
        assert str(profiles.wcs.world_axis_units[1]) == "nm"
        headers = profiles.meta["headers"]
        assert set(headers["CTYPE2"]) == {"AWAV"}
        linear = headers["CRVAL2"][0] + headers["CDELT2"][0] * pixels
        np.testing.assert_allclose(linear, nm, rtol=0, atol=1e-8)


def test_every_pixel_lies_where_the_frames_say(
    made: tuple[Path, list[Path], Level2Files], inversion: Any
) -> None:
    slit = np.arange(world.SHAPE.x)
    for step in range(world.SHAPE.y):
        frame = WCS(fits.getheader(made[1][step], 1), fix=False)
        # The middle of three pixels of the frame.
        lat, _, lon = frame.pixel_to_world_values(3 * slit + 1, 0, 0)
        depth, ours_lon, ours_lat, _ = inversion["velocity"].wcs.pixel_to_world_values(0, slit, step)
        assert np.unique(depth) == pytest.approx(1.0)
        np.testing.assert_allclose(ours_lon * ARCSEC_TO_DEG, lon, rtol=0, atol=1e-9)
        np.testing.assert_allclose(ours_lat * ARCSEC_TO_DEG, lat, rtol=0, atol=1e-9)
        name = made[2].names[step]
        for hdu, pixel in ((6, (0, slit, 0)), (12, (0, 0, slit, 0))):
            of_file = WCS(fits.getheader(made[2].folder / name, hdu), fix=False).pixel_to_world_values(*pixel)
            np.testing.assert_allclose(of_file[-2], lat, rtol=0, atol=1e-9)
            np.testing.assert_allclose(of_file[-1], lon, rtol=0, atol=1e-9)


def test_a_place_is_found_again_in_pixels(inversion: Any) -> None:
    for dataset, pixel in (
        (inversion["temperature"], (3.0, 4.0, 2.0)),
        (inversion.profiles["CaII854_fit"], (1.0, 2.0, 4.0, 3.0)),
    ):
        there = dataset.wcs.pixel_to_world_values(*pixel)
        np.testing.assert_allclose(dataset.wcs.world_to_pixel_values(*there), pixel, rtol=0, atol=1e-6)


def test_each_step_has_its_time(inversion: Any, files: Level2Files) -> None:
    for step in range(world.SHAPE.y):
        *_, time = inversion["temperature"].wcs.pixel_to_world(0, 0, step)
        middle = Time(world.START + step * world.CADENCE + world.EXPOSURE / 2)
        assert abs(time - middle) < 1 * u.ms
        header = fits.getheader(files.folder / files.names[step])
        assert abs(Time(header["DATE-AVG"]) - middle) < 1 * u.ms


def test_the_observer_is_on_earth(inversion: Any) -> None:
    _, place, _ = inversion["temperature"].wcs.pixel_to_world(0, 0, 0)
    earth = get_earth(world.START)
    assert place.observer.separation_3d(earth) < 20_000 * u.km


def test_a_cut_goes_through_quantities_and_profiles(inversion: Any) -> None:
    cut = inversion[1:3, 2:5]
    assert cut["density"].data.shape == (2, 3, 5)
    assert cut.profiles["FeI630_fit"].data.shape == (2, 3, 6, 4)


def test_headers_say_where_it_comes_from(files: Level2Files, inversion: Any) -> None:
    header = fits.getheader(files.folder / files.names[1])
    said = {
        "LEVEL": 2, "INV_ID": world.INVERSION, "OBSPR_ID": world.OP, "PROP_ID": world.PROPOSAL,
        "EXPER_ID": "eid_1_118", "IP_ID": "id.82591.123456", "L1DSET01": "AAAAA", "L1DSET02": "BBBBB",
        "INVSOFT": world.COMMIT, "RULEVERS": "r1", "SYNTHET": True, "STEPNUM": 2, "NSTEPS": 4,
        "FILENAME": files.names[1], "OBJECT": "sunspot", "AO_LOCK": True,
    }  # fmt: skip
    assert {key: header[key] for key in said} == said
    assert header["ATMOS_R0"] == pytest.approx(0.1)
    assert list(inversion.meta["headers"]["FILENAME"]) == files.names[:-1]
    inventory = inversion.meta["inventory"]
    assert inventory["datasetIds"] == ["AAAAA", "BBBBB"]
    assert inventory["frameCount"] == world.SHAPE.y
    assert inventory["isPointingFromFrames"] is True


def test_fits_files_are_whole(files: Level2Files) -> None:
    for name in files.names[:-1]:
        with fits.open(files.folder / name, checksum=True) as hdus:
            hdus.verify("exception")


def test_without_frames_the_record_places_the_steps(
    made: tuple[Path, list[Path], Level2Files], tmp_path: Path
) -> None:
    files = write_level2(made[0], tmp_path, world.request())
    wcs = world.opened(files.folder)["temperature"].wcs
    _, lon, lat, time = wcs.pixel_to_world_values(0, [0, 5], [0, 3])
    lon = (lon + 648_000) % 1_296_000 - 648_000  # west of the centre it comes as nearly 360 degrees
    np.testing.assert_allclose(lon, [-56.05 + 115.98 / 8, 59.93 - 115.98 / 8], atol=0.01)
    np.testing.assert_allclose(lat, [-991.35 + 118.72 / 12, -872.63 - 118.72 / 12], atol=0.01)
    assert time[1] == pytest.approx(3 * 2.8)
    for hdu in (1, 12):
        assert fits.getheader(files.folder / files.names[0], hdu)["WCSVALID"] is False


@pytest.mark.parametrize("frames", [2, 6])
def test_frames_of_another_count_place_nothing(
    frames: int, made: tuple[Path, list[Path], Level2Files], tmp_path: Path
) -> None:
    others = world.frames(tmp_path / "frames", frames)
    files = write_level2(made[0], tmp_path, world.request(), others)
    assert files.manifest["is_pointing_from_frames"] is False


def test_stokes_parameters_that_follow_each_other_are_one_step(
    made: tuple[Path, list[Path], Level2Files], files: Level2Files, tmp_path: Path
) -> None:
    frames = world.frames(tmp_path / "frames", world.SHAPE.y)
    for path in frames:
        stokes, step = path.stem.split("_")[1:]
        with fits.open(path, mode="update", disable_image_compression=True) as hdus:
            header = hdus[-1].header
            header["VSPMAP"], header["VSPSTP"] = 1, int(step) + 1
            if stokes == "V":
                for word in ("DATE-BEG", "DATE-END"):
                    moment = datetime.fromisoformat(header[word]) + timedelta(seconds=1)
                    header[word] = moment.isoformat(timespec="microseconds")
    later = write_level2(made[0], tmp_path, world.request(), frames)
    assert later.manifest["is_pointing_from_frames"] is True
    for name in files.names[:-1]:
        once, after = (fits.getheader(one.folder / name) for one in (files, later))
        assert after["DATE-BEG"] == once["DATE-BEG"]
        ends = [datetime.fromisoformat(header["DATE-END"]) for header in (once, after)]
        assert ends[1] - ends[0] == timedelta(seconds=1)
        once, after = (fits.getheader(one.folder / name, 1) for one in (files, later))
        assert [after[f"CRVAL{axis}"] for axis in (1, 2)] == [once[f"CRVAL{axis}"] for axis in (1, 2)]


def _uneven(path: Path, hdu: int, change: Callable[[np.ndarray], None]) -> None:
    with fits.open(path, mode="update") as hdus:
        change(hdus[hdu].data)


def test_uneven_axes_are_told_by_a_table(tmp_path: Path) -> None:
    products = world.products(tmp_path / "products")

    def squeeze(offsets: np.ndarray) -> None:
        offsets[5] -= 30.0

    def stretch(model: np.ndarray) -> None:
        model[0, 4] -= 0.5

    _uneven(products / FITTED_FILE, 1, squeeze)
    _uneven(products / MODEL_FILE, 0, stretch)
    inversion = world.opened(write_level2(products, tmp_path, world.request()).folder)
    _, nm, *_ = inversion.profiles["FeI630_fit"].wcs.pixel_to_world_values(0, [4, 5], 0, 0)
    np.testing.assert_allclose(nm, 630.15012 + np.array([240.0, 370.0]) * 1e-4)
    depth, *_ = inversion["density"].wcs.pixel_to_world_values([3, 4], 0, 0)
    np.testing.assert_allclose(depth, [-2.0, -3.5])


def test_the_snippet_of_the_page_runs(files: Level2Files, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/products.md").read_text(encoding="utf-8")
    snippet = page.split("```python\n")[1].split("```")[0]
    path = "data/level2/pid_1_118/inv_ABC123"
    assert path in snippet
    names: dict[str, Any] = {}
    exec(snippet.replace(path, str(files.folder)), names)
    assert capsys.readouterr().out.splitlines()[-2] == "K (4, 6, 5)"
    assert names["log_tau"].value == pytest.approx(-1.0)
    assert names["stokes_i"].shape == names["nm"].shape == (6,)
    assert names["part"]["density"].data.shape == (2, 3, 5)


def test_the_page_lists_the_quantities() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/products.md").read_text(encoding="utf-8")
    for number, quantity in enumerate(LEVEL2_QUANTITIES, 1):
        row = next(line for line in page.splitlines() if line.startswith(f"| {number} |"))
        assert f"`{quantity.key}`" in row
        if quantity.unit:
            assert quantity.unit.replace("^2", "²").replace("^3", "³") in row.split("|")[-2]
