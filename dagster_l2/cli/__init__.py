"""The commands ``l2 …``: they parse and print; the work is elsewhere.

Each command's module is imported when it is called, so that ``l2 --help`` does not load the whole pipeline.
"""

from __future__ import annotations

import importlib
import sqlite3
import sys
import traceback
from collections.abc import Sequence

import click

_SECTIONS = {
    "To look": {
        "status": ("look", "How things stand: age of the data, OPs by state, what waits."),
        "queue": ("queue", "Who does what next, best first."),
        "show": ("look", "Everything about one OP: verdict with reasons, state, hand-overs."),
        "history": ("look", "Every step an OP took."),
        "why": ("explain", "Why an OP can be inverted or not, in words."),
        "replay": ("explain", "Decide again from what was known then: is the answer the same?"),
        "what-if": ("explain", "Which OPs another threshold would move; it decides nothing."),
        "sql": ("sql", "Query the analysts' DuckDB file."),
        "notebook": ("notebook", "Open the notebook on the analysts' DuckDB file (marimo)."),
        "docs": ("docs", "Write the dbt docs with the lineage as one HTML file."),
    },
    "For scientists": {
        "claim": ("work", "Take an OP to invert it."),
        "release": ("work", "Give a claimed OP back to the queue."),
        "ready": ("work", "Say that the products of a claimed OP are ready."),
        "stage": ("stage", "Bring the level-1 frames of OPs here."),
        "preprocess": ("preprocess", "Stage and check an OP's frames; with --cubes make cubes of them."),
        "send": ("stage", "Let Globus send an OP's input package to the science side."),
        "prioritize": ("people", "Set the priority of an OP, with a reason."),
        "assign": ("people", "Say who should take an OP."),
        "note": ("people", "Add a remark to an OP."),
    },
    "For operators": {
        "run": ("run", "One whole pass: scan, build, decide, preprocess, take hand-overs, publish, gold."),
        "scan": ("run", "Scan the metadata store into bronze, and nothing else."),
        "publish": ("work", "Approve and publish an Inverted OP (operators)."),
        "reopen": ("work", "Open a Published OP again, with a reason (operators)."),
        "withdraw": ("work", "Take back products that are not published yet, to redo them."),
        "retry": ("work", "Bring an OP in Error back to the state before it."),
        "inbox": ("inbox", "Every ready event that came in, and what became of it."),
        "alerts": ("alerts", "What people were told of, and what waits to be."),
        "db": ("database", "The state database: upgrade it, check it."),
        "ledger": ("ledger", "The ledger as a file: export it, import it."),
        "backup": ("backup", "Copy away what cannot be made anew: ledger, bronze, manifests."),
        "restore": ("backup", "Bring a backup into an empty data folder."),
    },
    "Downloads": {
        "download": ("download", "Download REACH from the UDL into bronze, a day at a time."),
        "jobs": ("jobs", "The jobs that download: list them, look into one, resume it, retry its failures."),
    },
    "To serve": {
        "ui": ("serve", "Start the Dagster UI, its daemon and the local store."),
        "serve": ("service", "The ledger over HTTP, for machines and people with a token."),
        "token": ("service", "The tokens of the service: add, list, revoke."),
        "store": ("serve", "The local metadata store."),
    },
}
_COMMANDS = {name: entry for section in _SECTIONS.values() for name, entry in section.items()}

# Dagster's own records are SQLite, too, and it lets these through.
_DISK_ERRORS = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"dagster_l2.cli.{_COMMANDS[name][0]}")
        command: click.Command = getattr(module, f"{name.replace('-', '_')}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def l2(debug: bool) -> None:
    """From a solar telescope's level-1 datasets to published level-2 inversions.

    Exit codes: 0 well, 1 something failed, 2 wrong use, 3 already running,
    130 stopped by Ctrl-C.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; an error is one sentence on standard error and an exit code."""
    if argv is None:  # the process is the command's own
        from dagster_l2.cli.interrupt import be_ended_by_sigterm

        be_ended_by_sigterm()
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.exit(_run(arguments))


def _run(arguments: list[str]) -> int:
    from dagster_l2.base.errors import L2Error

    try:
        outcome = l2.main(args=arguments, prog_name="l2", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _fail("Interrupted; what was finished is kept, run the command again.", 130)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except L2Error as error:
        _trace(arguments)
        return _fail(str(error), error.exit_code)
    except OSError as error:
        _trace(arguments)
        what = f" {error.filename}" if error.filename else ""
        return _fail(f"The system refused{what}: {error.strerror or error}; nothing is lost.", 1)
    except Exception as error:
        if "--debug" in arguments:
            raise
        refusal = _disk_refusal(error)
        if refusal is not None:
            return _fail(
                f"The disk refused: {refusal}. Make room or mend the rights and run again; nothing is lost.",
                1,
            )
        text = " ".join(str(error).split())[:300]
        return _fail(f"Unexpected {type(error).__name__}: {text} (l2 --debug … shows where).", 1)


def _disk_refusal(error: BaseException | None) -> str | None:
    """What SQLite said of a disk it could not write to, wherever in the chain of causes that is."""
    while error is not None:
        said = getattr(error, "orig", None) or error
        # Errors that the Python module raises by itself carry no name.
        name = getattr(said, "sqlite_errorname", "")
        if isinstance(said, sqlite3.Error) and name.startswith(_DISK_ERRORS):
            return str(said)
        error = error.__cause__ or error.__context__
    return None


def _trace(arguments: list[str]) -> None:
    if "--debug" in arguments:
        traceback.print_exc()


def _fail(sentence: str, code: int) -> int:
    click.echo(f"Error: {sentence}", err=True)
    return code
