"""The notebook runs from its first to its last cell on the demo, and its pictures show what gold holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.end_to_end.kit import Pipeline

pytest.importorskip("marimo")

pytestmark = pytest.mark.xdist_group("analysts")

# Of each picture its name and the width and height of its bars or boxes; saves it as PNG.
_RUN = """
import json, runpy, sys
import matplotlib
matplotlib.use("agg")
_, named = runpy.run_path(sys.argv[1])["app"].run()
for name, figure in named.items():
    if not name.endswith("_picture"):
        continue
    (axes,) = figure.axes
    figure.savefig(f"{sys.argv[2]}/{name}.png", bbox_inches="tight")
    boxes = [patch for patch in axes.patches if hasattr(patch, "get_xy")]
    sizes = [(float(box.get_width()), float(box.get_height())) for box in boxes]
    print(json.dumps({"name": name, "sizes": sizes}))
"""


def test_each_picture_shows_what_gold_holds(demo: Pipeline, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(REPOSITORY / "notebooks" / "l2.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=demo.environment({}),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pictures = {one["name"]: one["sizes"] for one in map(json.loads, done.stdout.splitlines())}
    (counts,) = demo.sql(
        "select count(fried_parameter_median_m) as with_r0, count(start_time) as dated,"
        " (select count(*) from datasets where abs(box_x1_arcsec) + abs(box_y1_arcsec) < 3000"
        "  and (box_x2_arcsec + box_y2_arcsec + solar_radius_arcsec) is not null) as boxes,"
        " (select count(*) from op_latest_state) as states,"
        " (select count(*) from (select distinct op_id, to_state from op_history)) as visits"
        " from observing_programs"
    )
    assert sum(height for _, height in pictures["seeing_picture"]) == counts["with_r0"] > 20
    assert sum(height for _, height in pictures["months_picture"]) == counts["dated"]
    assert len(pictures["disk_picture"]) == counts["boxes"] > 100
    assert sum(width for width, _ in pictures["states_picture"]) == counts["states"] + counts["visits"]
    assert len(list(tmp_path.glob("*.png"))) == len(pictures) == 4
