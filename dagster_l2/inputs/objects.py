"""Where the bytes of frames lie: an object space over HTTP, or a folder that is mounted here.

One frame is fetched at a time, resumed where it broke off, and counts only when it is whole. Which frames
there are, and when they are fetched, is decided in ``staging``.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from dagster_l2.batch import FailureClass
from dagster_l2.errors import L2Error
from dagster_l2.files import fsync_file, fsync_folder, step
from dagster_l2.inputs.frames import Frame
from dagster_l2.telemetry import count

if TYPE_CHECKING:
    import httpx

_PIECE = 1 << 20


class FrameNotFetched(L2Error):
    """A frame did not arrive.

    Parameters
    ----------
    failure_class
        Whether it may arrive later.
    """

    def __init__(self, message: str, failure_class: FailureClass) -> None:
        super().__init__(message)
        self.failure_class = failure_class
        self.transient = failure_class is FailureClass.PASSING


class Objects(Protocol):
    """Where frames come from; ``most_at_once`` is how many are best gathered together."""

    most_at_once: int

    def gather(self, wanted: Sequence[tuple[Frame, Path]]) -> None:
        """Make ready to fetch these, where many come together.

        Raises
        ------
        FrameNotFetched
            When none of them does.
        """

    def fetch(self, frame: Frame, target: Path) -> None:
        """Bring a frame to ``target``, whole or not at all.

        Raises
        ------
        FrameNotFetched
            When it does not arrive.
        """


class HttpObjects:
    """``<base>/<bucket>/<object key>`` over HTTP; ``Range`` resumes what broke off.

    Parameters
    ----------
    headers
        Sent with each request, such as ``Authorization``.
    timeout_s
        Seconds that one read may stall.
    """

    most_at_once = 64

    def __init__(
        self, base: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 60.0
    ) -> None:
        import httpx  # not before it is used: the package is read by commands that start quickly

        self._errors = httpx.HTTPError
        self._base = base.rstrip("/")
        self._http = httpx.Client(headers=dict(headers or {}), timeout=httpx.Timeout(timeout_s, connect=10.0))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def gather(self, wanted: Sequence[tuple[Frame, Path]]) -> None:
        """They come one by one."""

    def fetch(self, frame: Frame, target: Path) -> None:
        """See `Objects`."""
        part = part_of(target)
        have = part.stat().st_size if part.exists() else 0
        if frame.size is not None and have >= frame.size:
            part.unlink()
            have = 0
        url = f"{self._base}/{quote(frame.bucket)}/{quote(frame.object_key)}"
        headers = {"Range": f"bytes={have}-"} if have else {}
        count("api_requests")
        try:
            with self._http.stream("GET", url, headers=headers) as answer:
                self._check(answer, frame)
                with part.open("ab" if answer.status_code == 206 else "wb") as file:
                    for piece in answer.iter_bytes(_PIECE):
                        file.write(piece)
                        count("received_bytes", len(piece))
        except self._errors as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise FrameNotFetched(
                f"Frame {frame.object_key} broke off ({said}).", FailureClass.PASSING
            ) from None
        keep(frame, part, target)

    def _check(self, answer: httpx.Response, frame: Frame) -> None:
        status = answer.status_code
        if status in (200, 206):
            return
        is_passing = status in (408, 416, 429) or status >= 500
        raise FrameNotFetched(
            f"Frame {frame.object_key} is answered with HTTP {status}.",
            FailureClass.PASSING if is_passing else FailureClass.PERMANENT,
        )


class FolderObjects:
    """``<root>/<bucket>/<object key>`` in a folder that is mounted here."""

    most_at_once = 64

    def __init__(self, root: Path) -> None:
        self._root = root

    def close(self) -> None:
        """Nothing is open."""

    def gather(self, wanted: Sequence[tuple[Frame, Path]]) -> None:
        """They come one by one."""

    def fetch(self, frame: Frame, target: Path) -> None:
        """See `Objects`."""
        source = (self._root / frame.bucket / frame.object_key).resolve()
        if not source.is_relative_to(self._root.resolve()) or not source.is_file():
            # A share that is away looks empty: only where its root is there, the frame is missing.
            is_there = self._root.is_dir() and any(self._root.iterdir())
            raise FrameNotFetched(
                f"Frame {frame.object_key} is not below {self._root}.",
                FailureClass.PERMANENT if is_there else FailureClass.PASSING,
            )
        part = part_of(target)
        shutil.copyfile(source, part)
        keep(frame, part, target)


def part_of(target: Path) -> Path:
    """Where the bytes of a frame are gathered until it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f"{target.name}.part")


def keep(frame: Frame, part: Path, target: Path) -> None:
    """Give a frame its name, once it is as long as the store says."""
    size = part.stat().st_size
    if frame.size is not None and size != frame.size:
        kind = FailureClass.PASSING if size < frame.size else FailureClass.PERMANENT
        if size > frame.size:
            part.unlink()
        raise FrameNotFetched(
            f"Frame {frame.object_key} has {size} bytes, and the store lists {frame.size}.", kind
        )
    step(f"fsync {target.name}")
    fsync_file(part)
    step(f"rename {target.name}")
    part.replace(target)
    fsync_folder(target.parent)
