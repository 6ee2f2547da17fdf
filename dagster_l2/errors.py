"""The base of every error that is meant for a person: one sentence that says what is wrong and what to do."""

from __future__ import annotations


class L2Error(Exception):
    """What went wrong, in one sentence; ``exit_code`` is what a command ends with."""

    exit_code = 1


class WrongUse(L2Error):
    """A command or a setting that cannot be meant as it was given."""

    exit_code = 2
