"""What `make run` leaves: the demo of all tests about what analysts see, made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.kit import Pipeline


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The data folder after one pass on the embedded default; nobody changes it."""
    l2 = Pipeline(tmp_path_factory.mktemp("demo"))
    # Frames show in no table of gold.
    process = l2.start("run", "--play-scientist", L2_STAGE_FIRST="0")
    out, err = process.communicate(timeout=1800)
    assert process.returncode == 0, out + err
    return l2


@pytest.fixture
def demo_copy(demo: Pipeline, tmp_path: Path) -> Callable[[], Pipeline]:
    """A copy of it that a test may change."""

    def copy() -> Pipeline:
        shutil.copytree(demo.data, tmp_path / "data")
        return Pipeline(tmp_path)

    return copy
