"""Settings that cannot be meant are named in one sentence, before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagster_l2.schedules import build_schedules
from dagster_l2.setting_kinds import names_of_nothing
from dagster_l2.settings import Settings, SettingsError
from tests.end_to_end.kit import (
    Pipeline,
)

pytestmark = pytest.mark.xdist_group("bad_input")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"L2_STORE_RECORDS": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"L2_PUBLISH": "maybe"}, "L2_PUBLISH"),
        ({"L2_STORE_KIND": "soap"}, "L2_STORE_KIND"),
        ({"L2_SCAN_WORKERS": "0"}, "L2_SCAN_WORKERS"),
        ({"L2_STORE_PORT": "eighty"}, "L2_STORE_PORT"),
        ({"L2_SERVICE_PORT": "70000"}, "L2_SERVICE_PORT"),
        ({"L2_STORE_URL": "not a url"}, "L2_STORE_URL is not usable: write it like https://host"),
        ({"L2_WAREHOUSE_MEMORY": "much"}, "write it like 4GB"),
        ({"L2_DATA_DIR": "~nobody-of-this-name/data"}, "L2_DATA_DIR"),
        ({"L2_DATA_DIR": __file__}, "which is a file"),
    ],
)
def test_settings_that_cannot_be_meant(l2: Pipeline, settings: dict[str, str], expected: str) -> None:
    for command in (["run"], ["scan"], ["status"], ["queue"]):
        assert expected in l2.here(*command, code=2, **settings).error
    assert not l2.data.exists()


def test_a_mistyped_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would otherwise be passed over, and a pass over a real store become a demo."""
    for name in ("L2_STOR_URL", "L2_URL", "L2_STORE_URL", "L2_TEST_RECORDS"):
        monkeypatch.setenv(name, "https://store.example")
    assert list(names_of_nothing(Settings.model_fields)) == [
        "L2_STOR_URL is no setting; did you mean L2_STORE_URL?"
    ]


def test_a_file_of_settings_that_is_no_text(l2: Pipeline) -> None:
    (l2.home / ".env").write_bytes(b"L2_PUBLISH=\xff")
    assert ".env" in l2.here("status", code=2).error


def test_a_schedule_that_is_none(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", scan_every="every day")
    with pytest.raises(SettingsError, match="L2_SCAN_EVERY is not usable: 'every day' is no cron"):
        build_schedules(settings)
