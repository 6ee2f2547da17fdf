"""The scientist's part, played: only on generated records, so that the whole way shows once.

The hand-over is made of small synthetic FITS files that say so in their headers. Nothing here runs where
a store or records are configured.
"""

from __future__ import annotations

import hashlib

from dagster_l2.base.errors import WrongUse
from dagster_l2.base.files import safe_name
from dagster_l2.inputs import package_folder, read_package
from dagster_l2.ledger import Ledger, Present, State
from dagster_l2.pipeline.gold import read_gold
from dagster_l2.pipeline.preprocess import cubes_of
from dagster_l2.pipeline.queue import live_queue
from dagster_l2.products import SyntheticShape, write_products
from dagster_l2.settings import Settings

SCIENTIST = "demo scientist"
_SOFTWARE = hashlib.sha256(b"synthetic products").hexdigest()[:40]


def play(settings: Settings, ledger: Ledger) -> str | None:
    """Claim the best-ranked OP without embargo, write synthetic products and say ready.

    It happens once in the life of a data folder. It can be killed at any point: the next call goes on
    where it stopped.

    Returns
    -------
    str or None
        The OP handed over, or None when there is nothing (more) to play.

    Raises
    ------
    WrongUse
        Where the records are not generated ones.
    """
    if not (settings.is_embedded_default and settings.is_demo):
        raise WrongUse("The scientist's part is played on generated records only.")
    present = _mine(ledger) or _claim_best(settings, ledger)
    if present is None or present.state is not State.WORKING or _is_handed_over(ledger, present):
        return None
    inversion_id = str(present.inversion_id)
    folder = settings.data / "inbox" / safe_name(inversion_id)
    write_products(
        folder,
        op_id=present.op_id,
        inversion_id=inversion_id,
        lines=present.details.get("spectral_lines") or ["Fe I (630.15 nm)"],
        seed=1,
        shape=SyntheticShape(y=_steps(settings, present)),
    )
    _make_cubes(settings, present)
    ledger.submit_ready(present.op_id, products=str(folder), commit_hash=_SOFTWARE, actor=SCIENTIST)
    return present.op_id


def _steps(settings: Settings, present: Present) -> int:
    """As many steps of the slit as every dataset of the package has: frames per Stokes parameter."""
    package = read_package(package_folder(settings.data, present.op_id))
    datasets = [dataset for group in package["groups"] for dataset in group["datasets"]]
    return max(2, min(int(row["frame_count"]) // len(row["stokes"] or "IQUV") for row in datasets))


def _make_cubes(settings: Settings, present: Present) -> None:
    """Show what a scientist may ask for; where the frames are not here, nobody misses it."""
    folder = package_folder(settings.data, present.op_id)
    if read_package(folder)["staged"]:
        cubes_of(settings, present, folder)


def _mine(ledger: Ledger) -> Present | None:
    for present in ledger.present_all().values():
        if present.state in (State.WORKING, State.INVERTED, State.PUBLISHED, State.ERROR) and any(
            step.actor == SCIENTIST for step in ledger.history(present.op_id)
        ):
            return present
    return None


def _claim_best(settings: Settings, ledger: Ledger) -> Present | None:
    embargoed = {
        row["op_id"] for row in read_gold(settings.gold, "from observing_programs where is_embargoed")
    }
    for row in live_queue(settings.gold, ledger):
        if row["state"] == State.PREPROCESSED and row["op_id"] not in embargoed:
            ledger.claim(row["op_id"], actor=SCIENTIST)
            return ledger.present(row["op_id"])
    return None


def _is_handed_over(ledger: Ledger, present: Present) -> bool:
    return any(event.inversion_id == present.inversion_id for event, _ in ledger.events(present.op_id))
