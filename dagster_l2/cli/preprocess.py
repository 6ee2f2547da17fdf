"""``l2 preprocess``: an OP's frames staged and checked, and on request the cubes made of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from dagster_l2.answers.looking import staging_of
from dagster_l2.base.errors import WrongUse
from dagster_l2.cli.frames import staging_pairs
from dagster_l2.cli.output import json_option, print_json, print_pairs, print_rows, shown
from dagster_l2.cli.progress import Counter
from dagster_l2.cli.work import acting
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import load_settings


@click.command("preprocess")
@click.argument("op")
@click.option("--cubes", "with_cubes", is_flag=True, help="Make a cube of each dataset, too.")
@json_option
def preprocess_command(op: str, with_cubes: bool, as_json: bool) -> None:
    """Stage and check the frames of an OP; with --cubes make one FITS cube of each arm's dataset.

    A cube is [stokes, wavelength, slit, step] in the frames' unit, with wavelengths, continuum and noise.
    What is there already is left alone, and what was interrupted goes on.
    """
    settings = load_settings()
    from dagster_l2.pipeline.preprocess import cubes_of, ensure_staged
    from dagster_l2.pipeline.staging import HAVE_PACKAGE

    with Counter() as counter, open_ledger(settings) as ledger:

        def progress(op_id: str, here: int, of: int) -> None:
            counter.say(f"  {shown(op_id)}: {here:,} of {of:,} frames")

        present = ledger.present(op)
        if present.state not in HAVE_PACKAGE:
            raise WrongUse(f"{shown(op)} is {present.state}; it has nothing to preprocess.")
        folder = ensure_staged(settings, ledger, present, actor=acting(None), progress=progress)
        cubes = cubes_of(settings, present, folder) if with_cubes else []
    staging = staging_of(settings, op) or {}
    if as_json:
        print_json({"op_id": op, "staging": staging, "cubes": [asdict(cube) for cube in cubes]})
        return
    print_pairs({name: value for name, value in staging_pairs(staging).items() if name != "cubes"})
    if cubes:
        click.echo(f"\nCubes [stokes, wavelength, slit, step] in {folder / 'cubes'}")
        print_rows([_row(asdict(cube)) for cube in cubes])


def _row(cube: dict[str, Any]) -> dict[str, Any]:
    noise = ", ".join(
        f"{name} {'?' if value is None else format(value, '.1e')}" for name, value in cube["noise"].items()
    )
    return {
        "file": cube["file"],
        "arm": cube["arm"],
        "shape": "×".join(map(str, cube["shape"])),
        "nm": f"{cube['wavelength_min_nm']:.2f}–{cube['wavelength_max_nm']:.2f}",
        f"continuum, {cube['unit']}": cube["continuum"],
        "noise / continuum": noise,
        "absent": cube["absent"],
    }
