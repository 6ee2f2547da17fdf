"""What is backed up comes back: from a folder and a tar file, killed anywhere, while others write."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from dagster_l2.assets.export import export_rows, exported_table
from dagster_l2.base import files
from dagster_l2.base.errors import WrongUse
from dagster_l2.base.files import sha256
from dagster_l2.cli import _run
from dagster_l2.lake import BronzeTable, committed_files
from dagster_l2.ledger import Ledger, LedgerUnavailable, State
from dagster_l2.operations.archive import BadBackup
from dagster_l2.operations.backups import BackupFailed, back_up, restore
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import RESTORE_MARK, Settings, SettingsError, load_settings


@pytest.fixture
def settings(data: Path) -> Settings:
    """A small data folder: a history, its export, a table of records, an input package with a frame."""
    settings = load_settings()
    settings.mark_origin()
    with open_ledger(settings) as ledger:
        ledger.append("op1", State.DISCOVERED, actor="scan", cause="found")
        ledger.append("op1", State.INVERTIBLE, actor="verdict", cause="passed")
        ledger.add_token("ann", "scientist", actor="t")
        export_rows(ledger, settings.lake, "transitions")
    table = BronzeTable(settings.lake, "datasets", {"dataset_id": pl.String()})
    table.append(pl.DataFrame({"dataset_id": ["A", "B"]}), job_id="scan1", part="1")
    package = data / "inputs" / "op1"
    (package / "frames").mkdir(parents=True)
    (package / "inputs.json").write_text("{}", encoding="utf-8")
    (package / "frames" / "one.fits").write_bytes(b"large")
    (data / "jobs" / "job1").mkdir(parents=True)
    (data / "jobs" / "job1" / "job.json").write_text('{"job": 1}', encoding="utf-8")
    (settings.lake / "bronze" / "datasets" / "not-committed.parquet").write_bytes(b"half")
    return settings


def _content(settings: Settings) -> dict[str, bytes]:
    """What a backup is to bring back, by name."""
    return {
        str(path.relative_to(settings.data)): path.read_bytes()
        for name in ("lake", "inputs", "jobs", "origin.json")
        for path in [settings.data / name, *(settings.data / name).rglob("*")]
        if path.is_file() and "not-committed" not in path.name and "frames" not in path.parts
    }


def _history(settings: Settings) -> list[object]:
    with open_ledger(settings) as ledger:
        return [*ledger.history("op1"), *ledger.tokens()]


def test_a_ledger_that_is_lost_is_not_begun_anew(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history, dump = _history(settings), str(tmp_path / "dump.jsonl")
    assert _run(["backup", str(tmp_path / "backup")]) == 0
    assert _run(["ledger", "export", dump]) == 0
    for path in settings.data.glob("l2.sqlite*"):
        path.unlink()
    for command in ("status", "queue", "backup"):
        assert _run([command, *([str(tmp_path / "another")] if command == "backup" else [])]) == 1
        assert f"move {settings.data} away and take a backup back" in capsys.readouterr().err
    assert _run(["ledger", "import", dump]) == 0
    assert _history(settings) == history
    settings.data.rename(tmp_path / "away")
    assert _run(["restore", str(tmp_path / "backup")]) == 0
    assert _history(settings) == history


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_a_destroyed_folder_comes_back(settings: Settings, tmp_path: Path, name: str) -> None:
    content, history = _content(settings), _history(settings)
    assert _run(["backup", str(tmp_path / name)]) == 0
    shutil.rmtree(settings.data)
    assert _run(["restore", str(tmp_path / name)]) == 0
    assert _content(settings) == content
    assert _history(settings) == history
    assert not (settings.data / RESTORE_MARK).exists()
    assert _run(["db", "check"]) == 0


def test_a_folder_is_brought_up_to_date_and_keeps_no_more(settings: Settings, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    with open_ledger(settings) as ledger:
        first = back_up(settings, ledger, target)
        again = back_up(settings, ledger, target)
        ledger.append("op1", State.NOT_INVERTIBLE, actor="verdict", cause="failed")
        export_rows(ledger, settings.lake, "transitions")
        third = back_up(settings, ledger, target)
    assert first.copied_files > 0
    assert again.copied_files == 0
    assert 0 < third.copied_files < first.copied_files
    listed = json.loads((target / "backup.json").read_text(encoding="utf-8"))["files"]
    stored = {path.name for path in (target / "files").rglob("*") if path.is_file()}
    assert stored == {file["sha256"] for file in listed}


def _cut_off_at_each_step(work: Callable[[], None]) -> int:
    """Let the work fail at its first durable step, then at its second, until it comes through; how often."""
    for stop_at in range(200):
        steps = 0

        def refuse(name: str, stop_at: int = stop_at) -> None:
            nonlocal steps
            if steps == stop_at:
                raise OSError(28, "No space left on device")
            steps += 1

        files.watch_steps(refuse)
        try:
            work()
            return stop_at
        except OSError:
            continue
        finally:
            files.watch_steps(None)
    raise AssertionError("it never came through")


def test_a_restore_that_is_cut_off_goes_on_and_nobody_else_uses_the_folder(
    settings: Settings, tmp_path: Path
) -> None:
    content, history, target = _content(settings), _history(settings), tmp_path / "backup"
    with open_ledger(settings) as ledger:
        back_up(settings, ledger, target)
    shutil.rmtree(settings.data)

    def bring() -> None:
        if (settings.data / RESTORE_MARK).exists():
            with pytest.raises(SettingsError, match="run the same `l2 restore` again"):
                load_settings()
        restore(load_settings(restoring=True), target)

    assert _cut_off_at_each_step(bring) > 10
    assert _content(settings) == content
    assert _history(settings) == history
    load_settings()


def test_a_backup_that_is_cut_off_leaves_a_whole_one(settings: Settings, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    with open_ledger(settings) as ledger:
        back_up(settings, ledger, target)
        ledger.append("op1", State.NOT_INVERTIBLE, actor="verdict", cause="failed")

        def keep() -> None:
            for file in json.loads((target / "backup.json").read_text(encoding="utf-8"))["files"]:
                assert sha256(target / "files" / file["sha256"][:2] / file["sha256"]) == file["sha256"]
            back_up(settings, ledger, target)

        assert _cut_off_at_each_step(keep) > 3
    history = _history(settings)
    shutil.rmtree(settings.data)
    restore(settings, target)
    assert _history(settings) == history


def test_a_backup_taken_while_others_write_fits_together(settings: Settings, tmp_path: Path) -> None:
    """Bronze never knows more of the ledger than the ledger: the next export goes on without a gap."""
    stop = threading.Event()

    def write() -> None:
        with open_ledger(settings) as ledger:
            number = 0
            while not stop.is_set():
                number += 1
                ledger.append(f"new{number}", State.DISCOVERED, actor="scan", cause="found")
                export_rows(ledger, settings.lake, "transitions")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with open_ledger(settings) as ledger:
            for number in range(3):
                back_up(settings, ledger, tmp_path / f"backup{number}")
    finally:
        stop.set()
        writer.join()
    for number in range(3):
        restored = Settings(data_dir=tmp_path / f"restored{number}")
        restore(restored, tmp_path / f"backup{number}")
        with open_ledger(restored) as ledger:
            ids = {row.transition_id for op_id in ledger.present_all() for row in ledger.history(op_id)}
            export_rows(ledger, restored.lake, "transitions")
            exported = exported_table(restored.lake, "transitions").scan().collect()["transition_id"]
            assert sorted(exported) == sorted(ids)
            ledger.append("op1", State.NOT_INVERTIBLE, actor="verdict", cause="failed")
            assert export_rows(ledger, restored.lake, "transitions") == 1


def test_the_ledger_moves_to_postgresql_with_its_files(
    settings: Settings, tmp_path: Path, postgres_url: str
) -> None:
    history = _history(settings)
    with open_ledger(settings) as ledger:
        back_up(settings, ledger, tmp_path / "backup")
    other = Settings(data_dir=tmp_path / "other", database_url=postgres_url, db_schema="from_a_backup")
    restore(other, tmp_path / "backup")
    assert _history(other) == history
    # The disk is lost and the database is not.
    shutil.rmtree(other.data)
    with Ledger.open(postgres_url, schema="from_a_backup") as ledger:
        ledger.append("op1", State.NOT_INVERTIBLE, actor="verdict", cause="failed")
    with pytest.raises(LedgerUnavailable, match="rows that are not those of"):
        restore(other, tmp_path / "backup")
    restore(other, tmp_path / "backup", files_only=True)
    assert len(_history(other)) == len(history) + 1


def test_refusals_are_one_sentence_and_change_nothing(settings: Settings, tmp_path: Path) -> None:
    target, content = tmp_path / "backup", _content(settings)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine", encoding="utf-8")
    with open_ledger(settings) as ledger:
        with pytest.raises(BadBackup, match="holds something that is no backup"):
            back_up(settings, ledger, full)
        with pytest.raises(WrongUse, match="lies in the data folder"):
            back_up(settings, ledger, settings.data / "backup")
        back_up(settings, ledger, target)
        back_up(settings, ledger, tmp_path / "one.tar")
        with pytest.raises(BadBackup, match="is there already"):
            back_up(settings, ledger, tmp_path / "one.tar")
        whole = committed_files(settings.lake / "bronze" / "datasets")[-1]
        rows = whole.read_bytes()
        whole.write_bytes(rows[:-1] + b"x")
        with pytest.raises(BackupFailed, match="is not what its manifest says"):
            back_up(settings, ledger, tmp_path / "damaged")
        whole.write_bytes(rows)
    with pytest.raises(BackupFailed, match="holds something already"):
        restore(settings, target)
    with pytest.raises(BadBackup, match="no finished backup"):
        restore(Settings(data_dir=tmp_path / "new"), full)
    (tmp_path / "cut.tar").write_bytes((tmp_path / "one.tar").read_bytes()[:5000])
    with pytest.raises(BadBackup):
        restore(Settings(data_dir=tmp_path / "new"), tmp_path / "cut.tar")
    assert not (tmp_path / "new" / RESTORE_MARK).exists()
    assert _content(settings) == content


def test_a_damaged_or_hostile_backup_is_not_taken(settings: Settings, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    with open_ledger(settings) as ledger:
        back_up(settings, ledger, target)
    listed = json.loads((target / "backup.json").read_text(encoding="utf-8"))
    (one,) = [file for file in listed["files"] if file["path"].endswith("inputs.json")]
    stored = target / "files" / one["sha256"][:2] / one["sha256"]
    stored.write_bytes(b"xx")
    with pytest.raises(BadBackup, match="is damaged"):
        restore(Settings(data_dir=tmp_path / "new"), target)
    one["path"] = "../outside.json"
    (target / "backup.json").write_text(json.dumps(listed), encoding="utf-8")
    with pytest.raises(BadBackup, match="outside the data folder"):
        restore(Settings(data_dir=tmp_path / "newer"), target)
    assert not (tmp_path / "outside.json").exists()


def test_the_commands_tell_what_they_did(settings: Settings, tmp_path: Path) -> None:
    from dagster_l2.cli import l2

    target = str(tmp_path / "backup")
    told = json.loads(CliRunner().invoke(l2, ["backup", target, "--json"]).stdout)
    assert (told["files"], told["ledger_rows"]) == (told["copied_files"], 3)
    shutil.rmtree(settings.data)
    told = CliRunner().invoke(l2, ["restore", target]).stdout
    assert "3 rows of the ledger" in told
    assert _run(["restore", target]) == 1
