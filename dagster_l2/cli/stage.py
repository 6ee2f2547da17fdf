"""``l2 stage`` and ``l2 send``: the frames of OPs brought here, or sent to the science side."""

from __future__ import annotations

import click

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.cli.output import json_option, print_json, print_pairs, print_rows, shown
from dagster_l2.cli.progress import Counter
from dagster_l2.cli.work import acting
from dagster_l2.pipeline.wiring import open_ledger, open_store
from dagster_l2.settings import load_settings


@click.command("stage")
@click.argument("ops", nargs=-1, metavar="[OP]...")
@click.option(
    "--through", type=click.Choice(["globus"]), help="Let Globus bring them, whatever L2_FRAMES_FROM says."
)
@json_option
def stage_command(ops: tuple[str, ...], through: str | None, as_json: bool) -> None:
    """Bring the level-1 frames of these OPs here; without one, of the claimed ones and the queue's head.

    What is here already is not fetched again, and one that was interrupted goes on.
    """
    settings = load_settings()
    if through is not None:
        settings = settings.model_copy(update={"frames_from": through})
    from dagster_l2.pipeline.staging import HAVE_PACKAGE, stage, stage_next

    with Counter() as counter, open_ledger(settings) as ledger, open_store(settings) as store:

        def progress(op_id: str, here: int, of: int) -> None:
            counter.say(f"  {shown(op_id)}: {here:,} of {of:,} frames")

        if ops:
            presents = [ledger.present(op) for op in ops]
            for present in presents:
                if present.state not in HAVE_PACKAGE:
                    raise WrongUse(f"{shown(present.op_id)} is {present.state}; it has nothing to stage.")
            report = stage(
                settings, ledger, store, presents, actor=acting(None), run_id=None, progress=progress
            )
        else:
            report = stage_next(settings, ledger, store, actor=acting(None), run_id=None, progress=progress)
    rows = [{"op_id": op, "outcome": "staged"} for op in report.staged]
    rows += [{"op_id": op, "outcome": "there already"} for op in report.already]
    rows += [{"op_id": op, "outcome": "removed, published"} for op in report.evicted]
    rows += [{"op_id": op, "outcome": reason} for op, reason in (*report.left_out, *report.failed)]
    if as_json:
        print_json({"ops": rows, "frames": report.files, "bytes": report.bytes})
    elif rows:
        print_rows(rows, ("op_id", "outcome"))
    else:
        click.echo("Nothing to stage.")
    if report.failed:
        raise L2Error(report.failed[0][1])


@click.command("send")
@click.argument("op")
@click.option("--again", is_flag=True, help="Start another transfer, where one was started before.")
@json_option
def send_command(op: str, again: bool, as_json: bool) -> None:
    """Let Globus send the input package of an OP to the science side; once started, say how it stands."""
    settings = load_settings()
    from dagster_l2.pipeline.sending import send
    from dagster_l2.pipeline.staging import HAVE_PACKAGE

    with open_ledger(settings) as ledger:
        present = ledger.present(op)
    if present.state not in HAVE_PACKAGE:
        raise WrongUse(f"{shown(op)} is {present.state}; it has nothing to send.")
    content = send(settings, op, again=again)
    if as_json:
        print_json(content)
    else:
        manifest = content["manifest"]
        said = manifest if isinstance(manifest, str) else f"{manifest['status']}, task {manifest['task_id']}"
        print_pairs({**content, "manifest": said})
    for part in (content, content["manifest"]):
        if isinstance(part, dict) and part["status"] == "FAILED":
            raise L2Error(f"Globus did not bring it ({part['why']}); mend it and send it --again.")
