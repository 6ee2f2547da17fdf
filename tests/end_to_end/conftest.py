"""A command and a data folder for each test; every command runs in an environment of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.kit import Pipeline


@pytest.fixture
def l2(tmp_path: Path) -> Pipeline:
    home = tmp_path / "home"
    home.mkdir()
    return Pipeline(home)
