"""What the level-2 files of an inversion cost: processor seconds per step, size, and the most memory.

Products are made first, by another process, so that the memory is that of the writing. The exit code says
whether the memory stays under ``--most-mb``, however large the products are.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

from dagster_l2.products import Level2Request, SyntheticShape, write_level2, write_products

IDS = {"op_id": "eid_1_118_op", "inversion_id": "inv.ABC123"}
LINES = ["Fe I (630.15 nm)", "Ca II (854.21 nm)", "Na I D2 (589.0 nm)"]


def make(folder: Path, shape: SyntheticShape) -> None:
    write_products(folder, **IDS, lines=LINES, seed=1, shape=shape)


def request() -> Level2Request:
    start = datetime.fromisoformat("2024-04-17T20:25:00")
    return Level2Request(
        **IDS,
        proposal_id="pid_1_118",
        experiment_id=None,
        instrument_program_id="id.1.1",
        instrument="VISP",
        dataset_ids=("AAAAA",),
        canonical_dataset_id="AAAAA",
        start_time=start,
        end_time=start + timedelta(minutes=20),
        bounding_box="(60.0,-870.0),(-60.0,-990.0)",
        created_at=start,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("steps", 60), ("slit", 500), ("depth", 40), ("wavelengths", 400)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--most-mb", type=int, default=1500)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    shape = SyntheticShape(given.depth, given.wavelengths, given.steps, given.slit)
    if given.make:
        make(given.make, shape)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        products = Path(folder) / "products"
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--make", products], check=True)
        size = sum(path.stat().st_size for path in products.iterdir())
        seconds = []
        for turn in ("first", "second"):
            before = time.process_time()
            files = write_level2(products, Path(folder) / turn, request())
            seconds.append(time.process_time() - before)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"products: {size / 1e6:.0f} MB, {shape}")
    print(f"level-2:  {files.size / 1e6:.0f} MB in {len(files.names)} files")
    print(f"first:    {seconds[0]:.1f} s of processor time, what is loaded included")
    print(f"second:   {seconds[1]:.1f} s, {seconds[1] / given.steps * 1e3:.0f} ms a step")
    print(f"memory:   {memory:.0f} MB at most")
    return int(memory > given.most_mb)


if __name__ == "__main__":
    raise SystemExit(main())
