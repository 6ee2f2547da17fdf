"""A warehouse of its own for each test module, and the place of the real records."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from warehouse_kit import DUMPS, REPOSITORY, Warehouse


@pytest.fixture(scope="module")
def new_warehouse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Warehouse]:
    return lambda: Warehouse(tmp_path_factory.mktemp("warehouse")).create()


@pytest.fixture(scope="session")
def real_records() -> Path:
    """The folder of the real records, which are never copied."""
    default = REPOSITORY.parent / "shared" / "data" / "metadata-store"
    folder = Path(os.environ.get("L2_TEST_RECORDS", default))
    if not all((folder / date).is_dir() for date in DUMPS):
        pytest.skip(f"The real records are not at {folder}; set L2_TEST_RECORDS to their folder.")
    return folder
