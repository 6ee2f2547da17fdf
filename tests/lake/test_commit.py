"""What counts in the lake, and what a crash or a full disk leaves behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from dagster_l2.base import files
from dagster_l2.lake import (
    SCAN_COLUMNS,
    BronzeTable,
    LakeError,
    VersionLog,
    commit_link,
    commit_parquet,
    committed_files,
    done_path,
    is_intact,
)

FRAME = pl.DataFrame({"id": ["a", "b"], "value": [1, 2]})


def commit(path: Path, frame: pl.DataFrame = FRAME) -> None:
    commit_parquet(path, frame, job_id="job", batch_id="batch")


def test_a_committed_file_counts_and_is_intact(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    commit(path)
    assert committed_files(tmp_path) == [path]
    assert is_intact(path)
    assert pl.read_parquet(path).equals(FRAME)


def test_a_file_without_manifest_or_of_another_size_does_not_count(tmp_path: Path) -> None:
    for name in ("bare", "short", "gone", "garbled"):
        commit(tmp_path / f"{name}.parquet")
    done_path(tmp_path / "bare.parquet").unlink()
    (tmp_path / "short.parquet").write_bytes(b"")
    (tmp_path / "gone.parquet").unlink()
    done_path(tmp_path / "garbled.parquet").write_text("{torn")
    assert committed_files(tmp_path) == []


def test_a_flipped_byte_is_not_intact(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    commit(path)
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    assert not is_intact(path)


def test_a_file_committed_under_a_second_name_outlives_the_first(tmp_path: Path) -> None:
    first, second = tmp_path / "x.parquet", tmp_path / "lake" / "y.parquet"
    commit(first)
    assert commit_link(second, first, job_id="other", batch_id="part").row_count == 2
    commit(first, FRAME.head(1))
    first.unlink()
    assert is_intact(second)
    assert pl.read_parquet(second).equals(FRAME)


def test_a_damaged_file_gets_no_second_name(tmp_path: Path) -> None:
    first, second = tmp_path / "x.parquet", tmp_path / "y.parquet"
    commit(first)
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(LakeError, match="is the disk sound"):
        commit_link(second, first, job_id="other", batch_id="part")
    assert not second.exists()


def test_a_full_disk_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.json"
    files.write_json(target, {"old": 1})

    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "fsync_file", full)
        with pytest.raises(OSError, match="No space"):
            files.write_json(target, {"new": 1})
    assert target.read_text().strip() == '{\n  "old": 1\n}'
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


KILLED = """
import os, sys, signal
from pathlib import Path
import polars as pl
from dagster_l2.base import files
from dagster_l2.lake import commit
calls = 0
def dying(original):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    return call
files.fsync_file = dying(files.fsync_file)
files.fsync_folder = dying(files.fsync_folder)
Path.replace = dying(Path.replace)
commit.sha256 = dying(commit.sha256)
target = Path(sys.argv[1]) / "x.parquet"
commit.commit_parquet(target, pl.DataFrame({"id": ["new"]}), job_id="j", batch_id="b")
print(calls)
"""


def test_a_kill_at_any_step_leaves_a_file_that_counts_wholly_or_not_at_all(tmp_path: Path) -> None:
    """The steps are counted by the code itself: the run that survives says how many there are."""
    step = 0
    while True:
        step += 1
        folder = tmp_path / str(step)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder), str(step)],
            capture_output=True,
            text=True,
            check=False,
        )
        counting = committed_files(folder)
        for path in counting:
            assert pl.read_parquet(path)["id"].to_list() == ["new"]
        if done.returncode == 0:
            assert len(counting) == 1
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        commit(folder / "x.parquet")
        assert pl.read_parquet(committed_files(folder)[0]).equals(FRAME)
    assert step > 6


SCHEMA = {"id": pl.String(), "value": pl.Int64(), **SCAN_COLUMNS}


def write(log: VersionLog, values: dict[str, int], moment: int) -> tuple[int, int, int]:
    frame = pl.DataFrame({"id": list(values), "value": list(values.values())})
    hashes = pl.Series("content_hash", [f"h{value}" for value in values.values()], pl.String)
    changes = log.write_changes(
        frame, hashes, scanned_at=datetime(2026, 1, moment), job_id=f"job{moment}", part="all"
    )
    return changes.new, changes.changed, changes.unchanged


def test_a_version_log_holds_each_change_once(tmp_path: Path) -> None:
    table = BronzeTable(tmp_path, "things", SCHEMA)
    assert write(VersionLog(table, "id"), {"a": 1, "b": 2}, 1) == (2, 0, 0)
    before = committed_files(table.folder)
    assert write(VersionLog(table, "id"), {"a": 1, "b": 2}, 2) == (0, 0, 2)
    assert committed_files(table.folder) == before
    log = VersionLog(table, "id")
    assert write(log, {"a": 5, "c": 3}, 3) == (1, 1, 0)
    assert write(log, {"a": 1}, 4) == (0, 1, 0)
    rows = table.scan().collect().sort("scanned_at")
    assert rows.filter(pl.col("id") == "a")["value"].to_list() == [1, 5, 1]


def test_changes_are_counted_by_field(tmp_path: Path) -> None:
    log = VersionLog(BronzeTable(tmp_path, "things", SCHEMA), "id")
    write(log, {"a": 1, "b": 2}, 1)
    frame = pl.DataFrame({"id": ["b", "a"], "value": [None, 9]}, schema={"id": pl.String, "value": pl.Int64})
    changes = log.write_changes(
        frame, pl.Series(["x", "y"]), scanned_at=datetime(2026, 1, 2), job_id="j", part="all"
    )
    assert changes.by_field == {"value": 2}


def test_a_column_that_is_added_later_is_null_before(tmp_path: Path) -> None:
    write(VersionLog(BronzeTable(tmp_path, "things", SCHEMA), "id"), {"a": 1}, 1)
    wider = BronzeTable(tmp_path, "things", {**SCHEMA, "extra": pl.String()})
    wider.ensure()
    assert wider.scan().select("id", "extra").collect().rows() == [("a", None)]


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\nb", "'; drop table x", "x" * 300, "", ".", "..", "a b", "é"]
)
def test_an_id_from_outside_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    safe = files.safe_name(name)
    path = (tmp_path / safe).resolve()
    assert path.parent == tmp_path.resolve()
    path.mkdir()
    assert len(safe) <= 100


def test_ordinary_ids_are_their_own_names_and_others_never_meet() -> None:
    assert (
        files.safe_name("eid_1_118_opAvoqBr_R001.82591.13964206") == "eid_1_118_opAvoqBr_R001.82591.13964206"
    )
    assert files.safe_name("a/b") != files.safe_name("a.b") != files.safe_name("a_b")
    assert files.safe_name("a/b") != files.safe_name("a\\b")


def test_a_lock_says_who_holds_it_and_is_freed_by_a_death(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    code = (
        "import sys, time; from pathlib import Path; from dagster_l2.base.files import only_one\n"
        "with only_one(Path(sys.argv[1]), 'A scan'):\n print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline().strip() == "held"
        with (
            pytest.raises(
                files.AlreadyRunning, match=f"A scan is already running .process {holder.pid}, since"
            ),
            files.only_one(lock, "A scan"),
        ):
            pass
        holder.kill()
        holder.wait()
    with files.only_one(lock, "A scan"):
        pass
