"""Products come home whole, whatever happens on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from dagster_l2.files import AlreadyRunning, only_one, sha256
from dagster_l2.products import (
    MANIFEST_FILE,
    PRODUCT_FILES,
    ProductsNotTaken,
    SyntheticShape,
    VerifiedProducts,
    take_home,
    verify,
    write_products,
)

OP, INVERSION = "eid_1_118_opAvoqBr", "inv.ABC123"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_products(
        tmp_path / "there",
        op_id=OP,
        inversion_id=INVERSION,
        lines=["Fe I (630.15 nm)"],
        seed=1,
        shape=SyntheticShape(depth=3, wavelengths=5, y=4, x=5),
    )


@pytest.fixture
def verified(folder: Path) -> VerifiedProducts:
    return verify(folder, op_id=OP, inversion_id=INVERSION, dataset_ids=["AAAAA"])


def test_files_and_manifest_are_at_home(folder: Path, verified: VerifiedProducts, tmp_path: Path) -> None:
    home = tmp_path / "data" / "products" / "inv_ABC123"
    manifest = take_home(folder, home, verified)
    assert manifest == home / MANIFEST_FILE
    said = json.loads(manifest.read_text())
    assert said["inversion_id"] == INVERSION
    assert said["op_id"] == OP
    assert said["dataset_ids"] == ["AAAAA"]
    assert said["synthetic"] is True
    assert {file["name"]: file["sha256"] for file in said["files"]} == {
        name: sha256(home / name) for name in PRODUCT_FILES
    }
    assert verify(home, op_id=OP, inversion_id=INVERSION, dataset_ids=["AAAAA"]) == verified


def test_a_second_time_writes_nothing_and_needs_no_source(
    folder: Path, verified: VerifiedProducts, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    take_home(folder, home, verified)
    kept = (*PRODUCT_FILES, MANIFEST_FILE)
    for name in kept:
        os.utime(home / name, ns=(1, 1))
    for name in PRODUCT_FILES:
        (folder / name).unlink()
    take_home(folder, home, verified)
    assert {(home / name).stat().st_mtime_ns for name in kept} == {1}


def test_a_damaged_copy_is_replaced(folder: Path, verified: VerifiedProducts, tmp_path: Path) -> None:
    home = tmp_path / "home"
    take_home(folder, home, verified)
    (home / PRODUCT_FILES[1]).write_bytes(b"damaged")
    take_home(folder, home, verified)
    assert sha256(home / PRODUCT_FILES[1]) == verified.files[1].sha256


def test_a_source_that_changed_since_it_was_verified_is_refused(
    folder: Path, verified: VerifiedProducts, tmp_path: Path
) -> None:
    with (folder / PRODUCT_FILES[2]).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    home = tmp_path / "home"
    with pytest.raises(ProductsNotTaken, match=r"per_ori\.fits in .* changed since it was verified"):
        take_home(folder, home, verified)
    assert not (home / PRODUCT_FILES[2]).exists()
    assert not (home / MANIFEST_FILE).exists()
    assert not list(home.glob(".*.tmp"))


def test_a_source_that_is_gone_is_one_sentence(
    folder: Path, verified: VerifiedProducts, tmp_path: Path
) -> None:
    (folder / PRODUCT_FILES[0]).unlink()
    with pytest.raises(ProductsNotTaken, match="no longer in"):
        take_home(folder, tmp_path / "home", verified)


def test_the_folder_itself_can_be_home(folder: Path, verified: VerifiedProducts) -> None:
    take_home(folder, folder, verified)
    assert (folder / MANIFEST_FILE).exists()


def run(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    prologue = f"""
    import os, resource, shutil, sys
    from pathlib import Path
    from dagster_l2.products import ProductsNotTaken, take_home, verify
    folder, home = map(Path, sys.argv[1:])
    verified = verify(folder, op_id={OP!r}, inversion_id={INVERSION!r}, dataset_ids=["AAAAA"])
    """
    command = [sys.executable, "-c", textwrap.dedent(prologue) + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_process_killed_while_it_copies_leaves_nothing_half_done(
    folder: Path, verified: VerifiedProducts, tmp_path: Path, turn: int
) -> None:
    home = tmp_path / "home"
    died = run(
        f"""
        turns = 0
        def half(source, target):
            global turns
            turns += 1
            content = Path(source).read_bytes()
            Path(target).write_bytes(content if turns < {turn} else content[: len(content) // 2])
            if turns == {turn}:
                os.kill(os.getpid(), 9)
        shutil.copyfile = half
        take_home(folder, home, verified)
        """,
        folder,
        home,
    )
    assert died.returncode == -9
    assert sorted(path.name for path in home.glob("*.fits")) == sorted(PRODUCT_FILES[: turn - 1])
    assert not (home / MANIFEST_FILE).exists()
    assert list(home.glob(".*.tmp"))

    take_home(folder, home, verified)
    assert {name: sha256(home / name) for name in PRODUCT_FILES} == {
        file.name: file.sha256 for file in verified.files
    }
    assert not list(home.glob(".*.tmp"))


def test_no_room_is_one_sentence_and_the_next_run_goes_on(
    folder: Path, verified: VerifiedProducts, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    refused = run(
        """
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            take_home(folder, home, verified)
        except ProductsNotTaken as error:
            print(error)
        """,
        folder,
        home,
    )
    assert refused.stderr == ""
    assert "cannot be copied" in refused.stdout
    assert "free space" in refused.stdout
    assert len(refused.stdout.splitlines()) == 1
    assert not list(home.glob("*.fits"))
    take_home(folder, home, verified)


def test_two_at_once_do_not_disturb_each_other(
    folder: Path, verified: VerifiedProducts, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    outcomes: list[str] = []
    start = threading.Barrier(6)

    def go() -> None:
        start.wait()
        try:
            take_home(folder, home, verified)
            outcomes.append("taken")
        except AlreadyRunning:
            outcomes.append("busy")

    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 6
    assert "taken" in outcomes
    assert {name: sha256(home / name) for name in PRODUCT_FILES} == {
        file.name: file.sha256 for file in verified.files
    }


def test_a_copy_under_way_is_named(folder: Path, verified: VerifiedProducts, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with only_one(home / ".taking.lock", "x"), pytest.raises(AlreadyRunning, match="is already running"):
        take_home(folder, home, verified)
