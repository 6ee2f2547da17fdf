"""Level-2 files come to be once, whatever happens on the way, and are refused when they are damaged."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import asdf
import numpy as np
import pytest
from astropy.io import fits

from dagster_l2.answers.looking import level2_of
from dagster_l2.base.files import sha256, watch_steps
from dagster_l2.cli.level2 import level2_pairs
from dagster_l2.pipeline.level2 import level2_folder
from dagster_l2.products import (
    FITTED_FILE,
    KNOWN_LINES,
    LEVEL2_MANIFEST,
    Level2Damaged,
    Level2Files,
    Level2Refused,
    SyntheticShape,
    UnknownLine,
    check_level2,
    line_named,
    lines_of,
    read_level2,
    write_level2,
)
from dagster_l2.products.level2.asdf_file import asdf_alone
from dagster_l2.settings import load_settings
from tests.products import level2_world as world

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.products(tmp_path_factory.mktemp("products"))


@pytest.fixture
def files(products: Path, tmp_path: Path) -> Level2Files:
    return write_level2(products, tmp_path / "level2", world.request())


def _sums(files: Level2Files) -> dict[str, str]:
    return {name: sha256(files.folder / name) for name in (*files.names, LEVEL2_MANIFEST)}


def _written(files: Level2Files) -> dict[str, int]:
    return {name: (files.folder / name).stat().st_mtime_ns for name in (*files.names, LEVEL2_MANIFEST)}


def test_the_same_request_writes_the_same_bytes_and_only_once(
    products: Path, files: Level2Files, tmp_path: Path
) -> None:
    before = _written(files)
    again = write_level2(products, tmp_path / "level2", world.request())
    assert again == files
    assert _written(again) == before
    elsewhere = write_level2(products, tmp_path / "elsewhere", world.request())
    assert _sums(elsewhere) == _sums(files)


def test_another_request_replaces_the_files_whole(products: Path, files: Level2Files, tmp_path: Path) -> None:
    later = world.request(
        start_time=world.START + world.CADENCE / 2, end_time=world.START + 6 * world.CADENCE
    )
    changed = write_level2(products, tmp_path / "level2", later)
    assert changed.folder == files.folder
    assert not set(changed.names[:-1]) & set(files.names[:-1])
    there = {path.name for path in changed.folder.glob("*.fits")}
    assert there == set(changed.names[:-1])
    check_level2(changed)


def test_stopped_at_any_step_it_ends_the_same(tmp_path: Path) -> None:
    products = world.products(tmp_path / "products", SyntheticShape(depth=2, wavelengths=4, y=2, x=2))
    steps: list[str] = []
    try:
        watch_steps(steps.append)
        whole = write_level2(products, tmp_path / "seen", world.request())
        assert len(steps) == 3 + 4 * 3  # only the last FITS file makes the renames of all durable
        for number in range(len(steps)):
            before = iter(range(number))

            def stop(_: str, before: Iterator[int] = before) -> None:
                if next(before, None) is None:
                    raise KeyboardInterrupt

            watch_steps(stop)
            with pytest.raises(KeyboardInterrupt):
                write_level2(products, tmp_path / "cut", world.request())
        watch_steps(None)
        assert _sums(write_level2(products, tmp_path / "cut", world.request())) == _sums(whole)
    finally:
        watch_steps(None)


def test_the_manifest_lists_what_is_there(products: Path, files: Level2Files, tmp_path: Path) -> None:
    said = json.loads((files.folder / LEVEL2_MANIFEST).read_text())
    assert said["products"][FITTED_FILE] == sha256(products / FITTED_FILE)
    assert said["request"]["software_commit"] == world.COMMIT
    assert said["lines"] == world.LINES
    assert files.size == sum((files.folder / name).stat().st_size for name in files.names)
    check_level2(files)
    assert read_level2(tmp_path / "level2", world.PROPOSAL, world.INVERSION) == files
    assert read_level2(tmp_path / "level2", world.PROPOSAL, "inv.OTHER1") is None


def test_show_names_the_files(products: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2_DATA_DIR", str(tmp_path))
    settings = load_settings()
    assert level2_of(settings, world.INVERSION) is None
    assert level2_of(settings, None) is None
    files = write_level2(products, level2_folder(tmp_path), world.request())
    level2 = level2_of(settings, world.INVERSION)
    assert level2 is not None
    assert level2["files"] == files.names
    pairs = level2_pairs(level2)
    assert pairs["opened by dkist"] == "pid_1_118/inv_ABC123/INV_ABC123_L2_metadata.asdf"
    assert pairs["steps"] == f"4, {files.names[0]} to {files.names[3]}"
    assert pairs["pointing"] == "from the record's box"


@pytest.mark.parametrize("which", [0, -1])
def test_a_changed_file_is_refused_and_written_again(
    which: int, products: Path, files: Level2Files, tmp_path: Path
) -> None:
    path = files.folder / files.names[which]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Level2Damaged, match=f"{path.name} is not what was written"):
        check_level2(files)
    path.unlink()
    with pytest.raises(Level2Damaged, match=f"{path.name} is missing"):
        check_level2(files)
    check_level2(write_level2(products, tmp_path / "level2", world.request()))


def test_dkist_refuses_an_asdf_file_that_breaks_the_schema(files: Level2Files) -> None:
    path = files.folder / files.names[-1]
    content = path.read_bytes()
    for good, bad in (
        (b"target: 3", b"target: ~"),
        (
            b"!<asdf://dkist.nso.edu/tags/file_manager-1.0.0>",
            b"!<asdf://dkist.nso.edu/tags/ravel_model-1.0.0> ",
        ),
    ):
        assert good in content
        path.write_bytes(content.replace(good, bad, 1))
        with pytest.raises(asdf.exceptions.ValidationError):
            world.opened(path)


def test_a_line_id_that_says_nothing_is_refused(tmp_path: Path) -> None:
    products = world.products(tmp_path / "products")
    with fits.open(products / FITTED_FILE, mode="update") as hdus:
        hdus[2].data[-1] = 77
    with pytest.raises(Level2Refused, match="holds the line id 77, which neither LINE77 nor our list names"):
        write_level2(products, tmp_path, world.request())
    assert read_level2(tmp_path, world.PROPOSAL, world.INVERSION) is None


def test_optical_depth_must_be_known_somewhere(tmp_path: Path) -> None:
    products = world.products(tmp_path / "products")
    with fits.open(products / "inv_res_mod.fits", mode="update") as hdus:
        hdus[0].data[0, 2] = np.nan
    with pytest.raises(Level2Refused, match="no point with a finite optical depth"):
        write_level2(products, tmp_path, world.request())


def test_points_that_are_not_finite_stay_so(tmp_path: Path) -> None:
    products = world.products(tmp_path / "products")
    with fits.open(products / "inv_res_mod.fits", mode="update") as hdus:
        hdus[0].data[1:, :, 0, :] = np.nan
        hdus[0].data[1, 0, 1, 0] = np.nan
    files = write_level2(products, tmp_path, world.request())
    temperature = world.opened(files.folder)["temperature"]
    assert np.isnan(temperature.data[0].compute()).all()
    assert np.isnan(temperature.data[1].compute()).sum() == 1
    assert np.isnan(temperature.meta["headers"]["DATAMAX"][0])
    assert temperature.meta["headers"]["DATAMAX"][1] > 3000


def test_lines_have_the_wavelengths_of_the_rules() -> None:
    path = REPOSITORY / "dbt_project/seeds/verdicts/wanted_lines.csv"
    with path.open(newline="") as file:
        rules = {row["estimated_name"]: float(row["wavelength_nm"]) for row in csv.DictReader(file)}
    assert {line.name: line.wavelength_nm for line in KNOWN_LINES.values()} == rules


def test_what_line_ids_mean() -> None:
    by_code = lines_of([23, 23, 9, 4], {})
    assert [line.key for line in by_code.values()] == ["FeI630", "NaID", "CaII854"]
    named = lines_of(
        [1, 2, 3], {"LINE1": "Fe I (630.15 nm)", "LINE2": "Fe I (630.25 nm)", "LINE3": "H alpha (656.28 nm)"}
    )
    assert [line.key for line in named.values()] == ["FeI630at630.15", "FeI630at630.25", "Halpha656"]
    assert named[1].wavelength_nm == 630.15012
    assert line_named("Mg I b1 (517.27 nm)").ion == "Mg I"
    with pytest.raises(UnknownLine, match="under two line ids"):
        lines_of([23, 1], {"LINE1": "Fe I (630.15 nm)"})
    with pytest.raises(UnknownLine, match="says no wavelength"):
        line_named("the yellow one")


def test_nothing_that_readers_plug_into_asdf_is_loaded_for_writing() -> None:
    def packages() -> set[str]:
        return {str(extension.package_name) for extension in asdf.get_config().extensions}

    with asdf.config_context() as config:
        config.reset_extensions()
        with asdf_alone():
            assert packages() == {"asdf"}
        assert {"asdf", "dkist"} <= packages()
