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

from dagster_l2.base.errors import L2Error
from dagster_l2.base.files import fsync_file, fsync_folder, step
from dagster_l2.base.ranges import part_given, strong_tag
from dagster_l2.base.telemetry import count
from dagster_l2.batch import FailureClass
from dagster_l2.inputs.frames import Frame

if TYPE_CHECKING:
    import httpx


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

    With ``If-Range`` where the server gave a strong entity tag, and without one only where the store says how
    long the frame is; else it is begun anew.

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
        self._http = httpx.Client(
            headers={"Accept-Encoding": "identity", **(headers or {})},
            timeout=httpx.Timeout(timeout_s, connect=10.0),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def gather(self, wanted: Sequence[tuple[Frame, Path]]) -> None:
        """They come one by one."""

    def fetch(self, frame: Frame, target: Path) -> None:
        """See `Objects`."""
        part = part_of(target)
        try:
            # What cannot be gone on with is begun anew, once.
            if not self._bring(frame, part, begun(frame, part)):
                self._bring(frame, part, 0)
        except self._errors as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise FrameNotFetched(
                f"Frame {frame.object_key} broke off ({said}).", FailureClass.PASSING
            ) from None
        keep(frame, part, target)

    def _bring(self, frame: Frame, part: Path, have: int) -> bool:
        """Bring what is behind the first ``have`` bytes; False when the server gives no such part."""
        tag = kept_tag(part) if have else None
        headers = {"Range": f"bytes={have}-"} if have else {}
        headers |= {"If-Range": tag} if tag else {}
        url = f"{self._base}/{quote(frame.bucket)}/{quote(frame.object_key)}"
        count("api_requests")
        with self._http.stream("GET", url, headers=headers) as answer:
            given = part_given(answer.headers.get("Content-Range"))
            is_next = answer.status_code == 206 and given is not None and given[0] == have
            if have and answer.status_code in (206, 416) and not is_next:
                part.unlink()
                return False
            self._check(answer, frame, is_next=have > 0 and is_next)
            with part.open("ab" if answer.status_code == 206 else "wb") as file:
                if answer.status_code == 200:
                    keep_tag(part, strong_tag(answer.headers.get("ETag")))
                # As they come: what waits here for more would be lost when the line breaks.
                for piece in answer.iter_raw():
                    file.write(piece)
                    count("received_bytes", len(piece))
        return True

    def _check(self, answer: httpx.Response, frame: Frame, *, is_next: bool) -> None:
        status, coded = answer.status_code, answer.headers.get("Content-Encoding", "identity")
        if status != 200 and not is_next:
            is_passing = status in (408, 429) or status >= 500
            raise FrameNotFetched(
                f"Frame {frame.object_key} is answered with HTTP {status}.",
                FailureClass.PASSING if is_passing else FailureClass.PERMANENT,
            )
        if coded != "identity":
            raise FrameNotFetched(
                f"Frame {frame.object_key} is sent as {coded}, which was not asked for.",
                FailureClass.PERMANENT,
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


def begun(frame: Frame, part: Path) -> int:
    """How many bytes of a frame can be gone on from.

    None of one that may be whole already, or that nothing ties to what is still to come: neither its tag nor
    the length that the store lists.
    """
    have = part.stat().st_size if part.exists() else 0
    if frame.size is None:
        return have if kept_tag(part) else 0
    return have if have < frame.size else 0


def keep_tag(part: Path, tag: str | None) -> None:
    """Remember which content the bytes of a part are of; called when it is empty."""
    if tag is None:
        _tag_file(part).unlink(missing_ok=True)
    else:
        _tag_file(part).write_text(tag, encoding="utf-8")


def kept_tag(part: Path) -> str | None:
    """What `keep_tag` remembered."""
    try:
        return strong_tag(_tag_file(part).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


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
    keep_tag(part, None)
    step(f"fsync {target.name}")
    fsync_file(part)
    step(f"rename {target.name}")
    part.replace(target)
    fsync_folder(target.parent)
