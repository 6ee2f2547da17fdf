"""Hand-overs as they come: right ones pass, wrong ones are refused with the reason, and nothing leaks."""

from __future__ import annotations

import os
import random
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from dagster_l2.base.files import sha256
from dagster_l2.products import (
    PRODUCT_FILES,
    QUANTITIES,
    Declared,
    ProductsRefused,
    SyntheticShape,
    VerifiedProducts,
    verify,
    write_products,
)

OP = "eid_1_118_opAvoqBr_R001.82591.13964206"
INVERSION = "inv.ABC123"
SHAPE = SyntheticShape(depth=3, wavelengths=6, y=4, x=5)
MODEL, FITTED, OBSERVED = PRODUCT_FILES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = ["Fe I (630.15 nm)", "Ca II (854.21 nm)"]
    return write_products(
        tmp_path / "products", op_id=OP, inversion_id=INVERSION, lines=lines, seed=1, shape=SHAPE
    )


def check(folder: Path, **changes: Any) -> VerifiedProducts:
    said = {"op_id": OP, "inversion_id": INVERSION, "dataset_ids": ["AAAAA"], "may_be_synthetic": True}
    return verify(folder, **{**said, **changes})  # type: ignore[arg-type]


def rewrite(path: Path, change: Callable[[fits.HDUList], fits.HDUList | None]) -> None:
    with fits.open(path, memmap=False) as hdus:
        for hdu in hdus:
            _ = hdu.data
        changed = change(hdus) or hdus
        changed.writeto(path, overwrite=True)


def plain(shape: tuple[int, ...], *vectors: Any) -> fits.HDUList:
    hdus = fits.HDUList([fits.PrimaryHDU(np.ones(shape, np.float32))])
    hdus.extend(fits.ImageHDU(np.asarray(vector)) for vector in vectors)
    return hdus


def refusal(folder: Path, **changes: Any) -> str:
    with pytest.raises(ProductsRefused) as refused:
        check(folder, **changes)
    text = str(refused.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


def test_right_products_pass_and_are_measured(folder: Path) -> None:
    verified = check(folder)
    assert [file.name for file in verified.files] == list(PRODUCT_FILES)
    assert [file.shape for file in verified.files] == [(11, 3, 4, 5), (4, 6, 4, 5), (4, 6, 4, 5)]
    for file in verified.files:
        assert file.sha256 == sha256(folder / file.name)
        assert file.size == (folder / file.name).stat().st_size
        assert file.finite_share == 1.0
    assert verified.dataset_ids == ("AAAAA",)
    assert verified.synthetic
    assert verified.says_op
    assert verified.says_inversion
    assert verified.findings == ()


def test_products_without_keywords_pass_with_a_finding(folder: Path) -> None:
    for name in PRODUCT_FILES:
        with fits.open(folder / name, mode="update") as hdus:
            for keyword in ("OBSPR_ID", "INV_ID", "SYNTHET"):
                del hdus[0].header[keyword]
    verified = check(folder)
    assert not verified.synthetic
    assert not verified.says_op
    assert not verified.says_inversion
    assert any("OBSPR_ID" in finding for finding in verified.findings)


@pytest.mark.parametrize("name", PRODUCT_FILES)
def test_one_synthetic_file_makes_the_hand_over_synthetic(folder: Path, name: str) -> None:
    for other in set(PRODUCT_FILES) - {name}:
        with fits.open(folder / other, mode="update") as hdus:
            hdus[0].header["SYNTHET"] = False
    assert check(folder).synthetic


def test_some_missing_values_are_counted_and_a_dead_quantity_is_a_finding(folder: Path) -> None:
    def blank(hdus: fits.HDUList) -> None:
        hdus[0].data[2] = np.nan
        hdus[0].data[1, 0, 0, 0] = np.inf

    rewrite(folder / MODEL, blank)
    verified = check(folder)
    assert verified.files[0].finite_share == pytest.approx(1 - (60 + 1) / 660)
    assert verified.findings == (f"{MODEL}: electron pressure has no finite value.",)


@pytest.mark.parametrize("bitpix", ["int16", "float64"])
def test_other_number_formats_pass(folder: Path, bitpix: str) -> None:
    with fits.open(folder / MODEL) as hdus:
        data = np.clip(hdus[0].data, -3e4, 3e4).astype(bitpix)
    fits.PrimaryHDU(data).writeto(folder / MODEL, overwrite=True)
    assert check(folder).files[0].finite_share == 1.0


VECTORS = (np.arange(6.0), np.arange(6))

WRONG_CONTENT = [
    (MODEL, plain((10, 3, 4, 5)), "has 10 on the quantity axis, expected 11"),
    (MODEL, plain((3, 4, 5)), "has 3 axes, expected 4"),
    (MODEL, plain((5, 4, 3, 11)), "has 5 on the quantity axis"),
    (MODEL, plain((11, 3, 5, 4)), "covers 5 x 4 points"),
    (MODEL, fits.HDUList([fits.PrimaryHDU()]), "has 0 axes"),
    (FITTED, plain((3, 6, 4, 5), *VECTORS), "has 3 on the stokes axis, expected 4"),
    (FITTED, plain((4, 6, 4, 5)), "lacks extension 1 with the wavelength offsets"),
    (FITTED, plain((4, 6, 4, 5), VECTORS[0]), "lacks extension 2 with the line ids"),
    (FITTED, plain((4, 6, 4, 5), np.arange(5.0), VECTORS[1]), "wavelength offsets of shape [5]"),
    (FITTED, plain((4, 6, 4, 5), VECTORS[0], np.arange(7)), "line ids of shape [7]"),
    (FITTED, plain((4, 6, 4, 5), np.full(6, np.nan), VECTORS[1]), "not finite"),
    (OBSERVED, plain((4, 7, 4, 5)), "has the shape [4, 7, 4, 5], but inv_res_pre.fits has [4, 6, 4, 5]"),
]


@pytest.mark.parametrize(("name", "content", "said"), WRONG_CONTENT)
def test_wrong_dimensions_are_refused(folder: Path, name: str, content: fits.HDUList, said: str) -> None:
    content.writeto(folder / name, overwrite=True)
    text = refusal(folder)
    assert name in text
    assert said in text


def test_a_table_in_place_of_the_line_ids_is_refused(folder: Path) -> None:
    table = fits.BinTableHDU.from_columns([fits.Column("line", "J", array=np.arange(6))])
    content = plain((4, 6, 4, 5), VECTORS[0])
    content.append(table)
    content.writeto(folder / FITTED, overwrite=True)
    assert "line ids a table in extension 2" in refusal(folder)


@pytest.mark.parametrize("name", PRODUCT_FILES)
def test_nothing_but_nan_is_refused(folder: Path, name: str) -> None:
    def blank(hdus: fits.HDUList) -> None:
        hdus[0].data[:] = np.nan

    rewrite(folder / name, blank)
    assert f"{name} holds no finite value" in refusal(folder)


@pytest.mark.parametrize("name", PRODUCT_FILES)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        (b"", "is empty"),
        (b"<html>not found</html>", "is not a FITS file"),
        (b"\x1f\x8b" + b"\0" * 100, "is not a FITS file"),
        (b"SIMPLE  =                    T", "cannot be read as FITS"),
        (b"SIMPLE  =" + b"\xff" * 5751, "cannot be read as FITS"),
    ],
)
def test_what_is_not_fits_is_refused(folder: Path, name: str, content: bytes | None, said: str) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    assert f"{name} {said}" in refusal(folder)


@pytest.mark.parametrize("name", PRODUCT_FILES)
def test_a_truncated_file_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    os.truncate(path, path.stat().st_size // 2 // 2880 * 2880)
    assert f"{name} is truncated" in refusal(folder)


def test_a_pipe_does_not_hang_the_check(folder: Path) -> None:
    (folder / MODEL).unlink()
    os.mkfifo(folder / MODEL)
    assert f"{MODEL} is not a file" in refusal(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "no\nwhere")


def test_all_problems_are_said_at_once(folder: Path) -> None:
    (folder / MODEL).unlink()
    (folder / OBSERVED).write_bytes(b"nothing")
    with pytest.raises(ProductsRefused) as refused:
        check(folder, dataset_ids=[])
    assert len(refused.value.problems) == 3
    assert str(refused.value) == f"{'; '.join(refused.value.problems)}."
    many = ProductsRefused([f"problem {number}" for number in range(100)])
    assert str(many).endswith("problem 9 (and 90 more).")


@pytest.mark.parametrize("name", PRODUCT_FILES)
def test_products_of_another_op_or_inversion_are_refused(folder: Path, name: str) -> None:
    for other in set(PRODUCT_FILES) - {name}:
        with fits.open(folder / other, mode="update") as hdus:
            del hdus[0].header["OBSPR_ID"], hdus[0].header["INV_ID"]
    assert refusal(folder, op_id="eid_2_2") == f"{name} says OBSPR_ID {OP!r}, but 'eid_2_2' was handed over."
    said = refusal(folder, inversion_id="inv.ZZZZZZ")
    assert said == f"{name} says INV_ID 'inv.ABC123', but 'inv.ZZZZZZ' was handed over."


def test_swapped_files_are_refused(folder: Path) -> None:
    shutil.move(folder / MODEL, folder / "spare")
    shutil.move(folder / FITTED, folder / MODEL)
    shutil.move(folder / "spare", folder / FITTED)
    text = refusal(folder)
    assert "has 4 on the quantity axis" in text
    assert f"; {FITTED}" in text


@pytest.mark.parametrize("op_id", ["../../x", 'o\'p "q"', "line\nbreak", "x" * 300, "Ünï", " blank "])
def test_any_id_is_recognized_in_its_own_products(tmp_path: Path, op_id: str) -> None:
    write_products(
        tmp_path, op_id=op_id, inversion_id=INVERSION, lines=["Fe I (630.15 nm)"], seed=1, shape=SHAPE
    )
    assert check(tmp_path, op_id=op_id).says_op
    refusal(tmp_path, op_id=op_id + "2")


def test_a_doubtful_header_becomes_a_finding_not_a_warning(folder: Path) -> None:
    path = folder / OBSERVED
    raw = bytearray(path.read_bytes())
    place = raw.index(b"SYNTHET =")
    raw[place : place + 80] = b"BAD\x01CARD without any sense".ljust(80)
    path.write_bytes(raw)
    verified = check(folder)
    assert any(finding.startswith(f"{OBSERVED}: ") for finding in verified.findings)
    assert all("\n" not in finding for finding in verified.findings)


def test_damaged_bytes_are_refused_or_harmless_and_never_anything_else(folder: Path) -> None:
    """Cuts anywhere and bytes changed in the headers: an answer each time, no other exception, no warning."""
    whole = {name: (folder / name).read_bytes() for name in PRODUCT_FILES}
    chance = random.Random(7)
    refused = 0
    for turn in range(240):
        name = PRODUCT_FILES[turn % 3]
        raw = bytearray(whole[name])
        if turn % 2:
            raw = raw[: chance.randrange(len(raw))]
        else:
            for _ in range(chance.randint(1, 6)):
                raw[chance.randrange(2880)] = chance.randrange(256)
        (folder / name).write_bytes(raw)
        try:
            check(folder)
        except ProductsRefused:
            refused += 1
        (folder / name).write_bytes(whole[name])
    assert 120 <= refused < 240
    check(folder)


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    shape = SyntheticShape(depth=4, wavelengths=4, y=4, x=4)
    write_products(tmp_path, op_id=OP, inversion_id=INVERSION, lines=["Fe I"], seed=1, shape=shape)
    plane = np.ones((400, 500), np.float32)
    model = plain((11, 20, 400, 500))
    model[0].data[1] = 6000
    model.writeto(tmp_path / MODEL, overwrite=True)
    del model
    profiles = plain((4, 20, 400, 500), np.arange(20.0), np.ones(20, int))
    profiles.writeto(tmp_path / FITTED, overwrite=True)
    profiles.writeto(tmp_path / OBSERVED, overwrite=True)
    del profiles
    tracemalloc.start()
    try:
        verified = check(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert verified.files[0].size > 200 * plane.nbytes
    assert peak < 20 * plane.nbytes  # of 220, some of them with twice the digits


def test_the_result_is_plain_json(folder: Path) -> None:
    import json

    said = check(folder).as_dict()
    assert json.loads(json.dumps(said)) == said
    assert said["files"][0]["shape"] == [11, 3, 4, 5]
    assert [quantity.name for quantity in QUANTITIES][:2] == ["optical depth", "temperature"]


LINES = ("Ca II (854.21 nm)", "Fe I (630.15 nm)")
DECLARED = Declared(lines=LINES, ranges_nm=((629.0, 631.5), (853.0, 855.0)), steps=(5,))


def genuine(folder: Path) -> None:
    """Products that do not say that they are made up."""
    for name in PRODUCT_FILES:
        with fits.open(folder / name, mode="update") as hdus:
            del hdus[0].header["SYNTHET"]


def test_products_that_fit_the_declared_datasets_pass_with_statistics(folder: Path) -> None:
    """One slit position may be missing at the end."""
    genuine(folder)
    verified = check(folder, declared=DECLARED)
    assert verified.findings == ()
    assert sorted(verified.lines) == sorted(LINES)
    with fits.open(folder / MODEL) as hdus:
        data = hdus[0].data.astype(float)
    assert [(row.file, row.quantity) for row in verified.statistics[:11]] == [
        (MODEL, quantity.name) for quantity in QUANTITIES
    ]
    for index, row in enumerate(verified.statistics[:11]):
        assert (row.minimum, row.maximum) == (data[index].min(), data[index].max())
        assert row.mean == pytest.approx(data[index].mean())
        assert row.deviation == pytest.approx(data[index].std(), rel=1e-6, abs=1e-9)
    assert len(verified.statistics) == 11 + 4 + 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": (7,)}, "has 4 slit positions (y), but the inputs 7 (one may be missing at the end)"),
        ({"lines": LINES[:1]}, "holds the line Fe I (630.15 nm), but the datasets were declared with Ca II"),
        ({"ranges_nm": ((629.0, 631.5),)}, "which none of the datasets covers"),
    ],
)
def test_products_of_other_datasets_are_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    declared = replace(DECLARED, **changes)
    assert any(said in finding for finding in check(folder, declared=declared).findings)
    genuine(folder)
    assert said in refusal(folder, declared=declared)


def swap_quantities(hdus: fits.HDUList) -> None:
    hdus[0].data[[0, 1]] = hdus[0].data[[1, 0]]


def half_nan(hdus: fits.HDUList) -> None:
    hdus[0].data[:6] = np.nan


def descend(hdus: fits.HDUList) -> None:
    hdus[1].data[:] = hdus[1].data[::-1].copy()


def in_angstrom(hdus: fits.HDUList) -> None:
    hdus[1].data[:] = hdus[1].data * 1e3


def mixed_lines(hdus: fits.HDUList) -> None:
    hdus[2].data[:] = [1, 2, 1, 2, 1, 2]


def swap_stokes(hdus: fits.HDUList) -> None:
    hdus[0].data[[0, 3]] = -np.abs(hdus[0].data[[3, 0]])


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        (MODEL, swap_quantities, "are quantities or axes in another order?"),
        (MODEL, half_nan, "finite values, expected 50% at least"),
        (FITTED, descend, "do not ascend in line 1"),
        (FITTED, in_angstrom, "are they in another unit?"),
        (FITTED, mixed_lines, "come again after another line"),
        (FITTED, swap_stokes, "has a mean Stokes I of -"),
    ],
)
def test_damaged_values_are_refused_with_the_reason(
    folder: Path, name: str, damage: Callable[[fits.HDUList], None], said: str
) -> None:
    rewrite(folder / name, damage)
    text = refusal(folder)
    assert name in text
    assert said in text
