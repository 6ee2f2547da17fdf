"""Which code runs."""

from __future__ import annotations

import functools
import subprocess

from dagster_l2.settings import REPOSITORY


@functools.cache
def git_commit() -> str | None:
    """The commit of the code that runs; None where it is no clone."""
    try:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
