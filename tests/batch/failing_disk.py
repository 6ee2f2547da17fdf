"""A disk that refuses one operation: a write half done, a sync, a rename, a link, a removal; all real.

The file system's calls are counted where Python makes them. A write is refused by the kernel itself, which
lets no file of this process grow for the time of one durable step: so what polars, Arrow and SQLite write is
cut off in the middle as well.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster_l2.base.files import watch_steps

_CALLS = ("fsync", "replace", "rename", "link", "unlink")
_TORN_BYTES = 64


class Disk:
    """Counts operations, and refuses the n-th one, once; None refuses none.

    ``seen`` names them all in their order, but for those on the file ``but``. What is refused a write may
    write nothing until the next operation.
    """

    def __init__(self, refuse: int | None = None, *, but: Path) -> None:
        self.seen: list[str] = []
        self._refuse, self._but = refuse, but
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """In force in this process."""
        plain = {name: getattr(os, name) for name in _CALLS}
        for name, call in plain.items():
            setattr(os, name, self._counted(name, call))
        watch_steps(self._step)
        try:
            yield
        finally:
            watch_steps(None)
            self._let_grow()
            for name, call in plain.items():
                setattr(os, name, call)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self._let_grow()
            if arguments[0] != self._but and self._is_refused(name):
                raise OSError(
                    errno.EIO, os.strerror(errno.EIO), None if name == "fsync" else str(arguments[0])
                )
            return call(*arguments, **options)

        return counted

    def _step(self, step: str) -> None:
        self._let_grow()
        if step.startswith(("write ", "database")) and self._is_refused(step.partition(":")[0]):
            resource.setrlimit(resource.RLIMIT_FSIZE, (_TORN_BYTES, self._limits[1]))

    def _let_grow(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)

    def _is_refused(self, what: str) -> bool:
        self.seen.append(what)
        return len(self.seen) - 1 == self._refuse
