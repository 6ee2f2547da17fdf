"""Commands that stay up: the local store, and the Dagster UI with all it needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
from dotenv import dotenv_values

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.base.listening import listen
from dagster_l2.setting_kinds import PREFIX
from dagster_l2.settings import REPOSITORY, Settings, load_settings


@click.group("store")
def store_command() -> None:
    """The local metadata store and UDL: a real server over dumps or generated records."""


@store_command.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; L2_STORE_PORT unless given.")
@click.option("--records", type=click.Path(path_type=Path), help="Dumps; L2_STORE_RECORDS unless given.")
@click.option("--allow-faults", is_flag=True, help="Take orders to misbehave at POST /_faults.")
def serve_command(host: str, port: int | None, records: Path | None, allow_faults: bool) -> None:
    """Serve GraphQL at /graphql, the public search at /datasets/v1, and REACH at /udl."""
    from dagster_l2.pipeline.wiring import local_store_app
    from dagster_l2.store.server import serve

    settings = load_settings()
    if records is not None and not records.exists():
        raise WrongUse(f"--records names {records}, which is not there.")
    wanted = settings.store_port if port is None else port
    refuse_taken(host, wanted, "The local store")
    app = local_store_app(settings, records, allow_faults=allow_faults)
    click.echo(f"The local store answers at http://{host}:{wanted}/graphql (Ctrl-C stops it).", err=True)
    serve(app, host, wanted)


@click.command("ui")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
def ui_command(port: int, host: str) -> None:
    """Start the Dagster UI, its daemon and the local store; Ctrl-C stops all of them."""
    settings = load_settings()
    from dagster_l2.cli.runner import prepare_dagster_home

    refuse_taken(host, port, "The UI (--port)")
    if settings.store_url is None:
        refuse_taken("127.0.0.1", settings.store_port, "The local store (L2_STORE_PORT)")
    prepare_dagster_home(settings)
    bin_folder = Path(sys.executable).parent
    environment = _environment(settings, bin_folder)
    commands = [
        [
            str(bin_folder / "dagster"),
            "dev",
            "-w",
            str(REPOSITORY / "workspace.yaml"),
            "-p",
            str(port),
            "-h",
            host,
        ]
    ]
    if settings.store_url is None:
        commands.append([str(bin_folder / "l2"), "store", "serve"])
    click.echo(f"UI: http://{host}:{port}  (starting takes some 20 s; Ctrl-C stops it)", err=True)
    # In Dagster's own folder, since it warns of a dagster.yaml in any other one.
    home = environment["DAGSTER_HOME"]
    # Ignored from birth in a shell's background job, and Dagster would ignore SIGTERM with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    processes = [subprocess.Popen(command, env=environment, cwd=home) for command in commands]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
        raise L2Error("A part of the UI ended by itself; its last lines above say why.")
    except KeyboardInterrupt:
        click.echo("Stopping.", err=True)
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def refuse_taken(host: str, port: int, what: str) -> None:
    """Raise `L2Error` when it cannot listen there, before half a minute is spent on starting."""
    listen(host, port, what, L2Error).close()


def _environment(settings: Settings, bin_folder: Path) -> dict[str, str]:
    """The environment of what is started: it has the settings of here, though its folder is another."""
    said = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    paths = {
        f"{PREFIX}{name.upper()}": str(value.expanduser().absolute())
        for name in settings.model_fields_set
        if isinstance(value := getattr(settings, name), Path)
    }
    return {
        **said,
        **os.environ,
        **paths,
        "DAGSTER_HOME": str(Path(os.environ["DAGSTER_HOME"]).resolve()),
        # dbt and the dagster programs are found on PATH.
        "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}",
        # `dagster dev` says of itself that `dg dev` is preferred, which is not installed with it.
        "PYTHONWARNINGS": ",".join(
            filter(None, (os.environ.get("PYTHONWARNINGS"), "ignore:Function `dev_command` is superseded"))
        ),
    }
