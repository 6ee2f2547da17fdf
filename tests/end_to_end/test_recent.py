"""``l2 scan --recent``: what is new by its dates, between two whole scans."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.end_to_end.kit import Pipeline, Store, generated

pytestmark = pytest.mark.xdist_group("bad_input")


def test_a_look_between_two_scans(l2: Pipeline, tmp_path: Path) -> None:
    store = Store(tmp_path, generated(3, seed=2))
    with store.served() as settings:
        l2.settings = settings
        assert "l2 scan" in l2.here("scan", "--recent", code=2).error
        assert "--accept-missing" in l2.here("scan", "--recent", "--accept-missing", code=2).error
        l2.here("scan")
        quiet = l2.here("scan", "--recent", "--json").json
        assert quiet == {"new": 0, "changed": 0, "unchanged": 0, "rejected": 0}
    now = datetime.now(UTC).replace(tzinfo=None).isoformat()
    store.records.datasets[0] |= {"frameCount": 1, "updateDate": now}
    with store.served() as settings:
        l2.settings = settings
        done = l2.here("scan", "--recent")
        assert done.out == "0 new, 1 changed, 0 unchanged, 0 rejected\n"
        assert l2.here("scan", "--json").json["changed"] == 0
