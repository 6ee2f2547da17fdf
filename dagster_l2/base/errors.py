"""The base of every error that is meant for a person: one sentence that says what is wrong and what to do."""

from __future__ import annotations

from typing import Literal


class L2Error(Exception):
    """What went wrong, in one sentence.

    ``exit_code`` is what a command ends with; ``transient`` says whether the same may well succeed later by
    itself.
    """

    exit_code = 1
    transient = False


class WrongUse(L2Error):
    """A command or a setting that cannot be meant as it was given."""

    exit_code = 2


def error_class(error: BaseException) -> Literal["transient", "permanent"]:
    """Whether what raised this may well succeed later by itself.

    So it is with errors that say so, with those of the system (a full disk, a share that is away), and with
    those that were raised from one of them.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) or getattr(cause, "transient", False):
            return "transient"
        cause = cause.__cause__
    return "permanent"


def one_sentence_of(error: Exception) -> str:
    """What went wrong, for a person, also when nobody foresaw it."""
    if isinstance(error, L2Error):
        return str(error)
    if isinstance(error, OSError):
        what = f" ({error.filename})" if error.filename else ""
        reason = error.strerror or str(error)
        return (
            f"The disk refused{what}: {reason}. Make room or mend the rights and run again; nothing is lost."
        )
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace else ""
    said = " ".join(str(error).split())[:300]
    return f"Nobody foresaw this, please report it: {type(error).__name__}{where}: {said}"
