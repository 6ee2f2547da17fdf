"""Shared fixtures: a clean environment, a data folder, the real records where they are at hand."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent

settings.register_profile("l2", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("l2")

pytest_plugins = ["tests.postgres"]

DATES = ("2025-05-08", "2025-06-25", "2025-10-23")


def pytest_configure() -> None:
    """Hear interrupts also in a shell's background job, where they are ignored from birth.

    Dagster gives SIGTERM the same meaning, and nothing that a test starts could be ended.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each module on one worker, where what it builds is built once; begin with what takes longest.

    A module that says ``xdist_group`` itself shares a worker with others, or spreads its tests over workers.
    """
    for item in items:
        if not any(item.iter_markers("xdist_group")):
            item.add_marker(pytest.mark.xdist_group(item.location[0]))
    items.sort(key=lambda item: "end_to_end" not in item.location[0])


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests changes them."""
    for name in list(os.environ):
        if name.startswith("L2_") and name != "L2_TEST_RECORDS":
            monkeypatch.delenv(name)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own, set for everything that reads settings."""
    folder = tmp_path / "data"
    monkeypatch.setenv("L2_DATA_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_records() -> Iterator[Path]:
    """The folder of real records; tests that need it skip where it is missing."""
    folder = Path(os.environ.get("L2_TEST_RECORDS", REPOSITORY.parent / "shared/data/metadata-store"))
    if not (folder / DATES[0]).is_dir():
        pytest.skip("the real records are not at hand (set L2_TEST_RECORDS)")
    return folder
