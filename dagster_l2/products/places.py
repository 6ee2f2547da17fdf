"""Where products lie before they come home: a folder of this machine, or an address over HTTP.

A place gives one file at a time, from where an earlier try broke off if it is still the same file. Which
files are wanted, and how they are kept, is in ``fetching``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import quote, urlsplit

from dagster_l2.base.errors import WrongUse
from dagster_l2.base.ranges import part_given, strong_tag
from dagster_l2.products.layout import ProductsRefused, ProductsUnreachable
from dagster_l2.products.reading import is_of_the_system

if TYPE_CHECKING:
    import httpx

PIECE = 1 << 20
_MOST_REDIRECTS = 5
_SCHEMES = ("http", "https", "globus", "file")


class NotGiven(Exception):
    """A place does not give a file, and another try would not change it; completes "<file> …"."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is here of a file: so many bytes of the content that ``tag`` stands for, perhaps all of them."""

    tag: str | None = None
    size: int = 0
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that is being given.

    Parameters
    ----------
    start
        Where in the file the first piece begins: 0, or behind what is kept.
    size
        Bytes of the whole file, where the place says it.
    tag
        Changes with the content; None where nothing does.
    kind
        What the place says that the file is.
    """

    start: int
    size: int | None
    tag: str | None
    pieces: Iterator[bytes]
    kind: str | None = None


class Place(Protocol):
    """Where the files of a hand-over lie; ``name`` is how people know it."""

    name: str

    def open(self, file: str, kept: Kept) -> AbstractContextManager[Opened | None]:
        """Give a file for the time of a block; None when all of it is kept and it has not changed.

        Raises
        ------
        NotGiven
            When there is no such file, or it may not be had.
        ProductsUnreachable
            When another try may give it.
        """


class FolderPlace:
    """A folder of this machine or of a share.

    Parameters
    ----------
    root
        The folder that it must lie in, where it was named as a part of one.
    """

    def __init__(self, folder: Path, *, root: Path | None = None) -> None:
        self.name = str(folder)
        self._folder, self._root = folder, root

    @contextmanager
    def open(self, file: str, kept: Kept) -> Iterator[Opened | None]:
        """See `Place`."""
        self._check()
        path = self._folder / file
        # A regular file only: opening a pipe would wait for ever.
        if not path.is_file():
            raise NotGiven("is not a file" if path.exists() else "is missing")
        with _reading():
            size, tag = _seen(path)
            content = path.open("rb")
        with content:
            if kept.tag == tag and kept.is_whole:
                yield None
                return
            start = kept.size if kept.tag == tag and kept.size <= size else 0
            content.seek(start)
            yield Opened(start, size, tag, _pieces(content))
        with _reading():
            if _seen(path) != (size, tag):
                raise ProductsUnreachable(f"{file} in {self.name} changed while it was copied.")

    def _check(self) -> None:
        if self._root is not None:
            # A share that is away looks empty: only where its root is there, the folder is missing.
            if not self._root.is_dir() or next(self._root.iterdir(), None) is None:
                raise ProductsUnreachable(f"Nothing is in L2_PRODUCTS_ROOT, {self._root}; is it mounted?")
            if not self._folder.resolve().is_relative_to(self._root.resolve()):
                raise ProductsRefused([f"The products folder {self.name!r} leads out of {self._root}"])
        if not self._folder.is_dir():
            raise ProductsRefused([f"The products folder {self.name!r} does not exist"])


def _pieces(content: BinaryIO) -> Iterator[bytes]:
    while True:
        with _reading():
            piece = content.read(PIECE)
        if not piece:
            return
        yield piece


@contextmanager
def _reading() -> Iterator[None]:
    """Tell a file that cannot be read from a disk or a share that gave up."""
    try:
        yield
    except FileNotFoundError:
        raise NotGiven("is missing") from None
    except OSError as error:
        if is_of_the_system(error):
            raise
        raise NotGiven(f"cannot be opened ({error.strerror or error})") from None


def _seen(path: Path) -> tuple[int, str]:
    found = path.stat()
    return found.st_size, f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


class HttpPlace:
    """A folder at an address; each file is ``<address>/<file>``.

    Resumed with ``Range`` and ``If-Range`` where the server gives strong entity tags (RFC 9110, 13.1.5 and
    14.2), else begun anew.

    Parameters
    ----------
    hosts
        Those that may be asked, also by a redirection; empty: any.
    timeout_s
        Seconds that one read may stall.
    """

    def __init__(self, address: str, *, hosts: frozenset[str] = frozenset(), timeout_s: float = 60.0) -> None:
        import httpx  # not before it is used: commands that start quickly read this room

        self.name = address.rstrip("/")
        self._errors = httpx
        self._hosts = hosts
        self._ask_plainly = False
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            headers={"Accept-Encoding": "identity"},
            follow_redirects=True,
            max_redirects=_MOST_REDIRECTS,
            event_hooks={"request": [self._check_host]},
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @contextmanager
    def open(self, file: str, kept: Kept) -> Iterator[Opened | None]:
        """See `Place`."""
        address, headers = f"{self.name}/{quote(file)}", self._conditions(kept)
        with ExitStack() as stack:
            with self._asking(file):
                answer = stack.enter_context(self._http.stream("GET", address, headers=headers))
            yield self._opened(answer, file, kept)

    @contextmanager
    def _asking(self, file: str) -> Iterator[None]:
        """Tell what another try may change from what it would not."""
        try:
            yield
        except self._errors.TooManyRedirects:
            raise NotGiven(f"is redirected more than {_MOST_REDIRECTS} times by {self.name}") from None
        except (self._errors.UnsupportedProtocol, self._errors.InvalidURL):
            raise NotGiven(f"is redirected to what is no address, by {self.name}") from None
        except self._errors.TimeoutException:
            raise ProductsUnreachable(f"{file} stalls at {self.name}.") from None
        except self._errors.HTTPError as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise ProductsUnreachable(f"{file} broke off at {self.name} ({said}).") from None

    def _pieces(self, answer: httpx.Response, file: str) -> Iterator[bytes]:
        # As they come: what waits here for more would be lost when the line breaks.
        with self._asking(file):
            yield from answer.iter_raw()

    def _conditions(self, kept: Kept) -> dict[str, str]:
        if kept.tag is None or self._ask_plainly:
            return {}
        if kept.is_whole:
            return {"If-None-Match": kept.tag}
        return {"Range": f"bytes={kept.size}-", "If-Range": kept.tag} if kept.size else {}

    def _opened(self, answer: httpx.Response, file: str, kept: Kept) -> Opened | None:
        asked, status = answer.request.headers, answer.status_code
        if status == 304 and "If-None-Match" in asked:
            return None
        start, size = 0, _number(answer.headers.get("Content-Length"))
        tag = answer.headers.get("ETag")
        if status == 206 or status == 416:
            part = part_given(answer.headers.get("Content-Range"))
            if status == 416 or part is None or "Range" not in asked or part[0] != kept.size:
                self._ask_plainly = True
                raise ProductsUnreachable(f"{self.name} answers a part of {file} wrongly.")
            start, size, tag = kept.size, part[1], tag or kept.tag
        elif status in (408, 425, 429) or status >= 500:
            raise ProductsUnreachable(f"{file} is answered with HTTP {status} by {self.name}.")
        elif status != 200:
            raise NotGiven(f"is answered with HTTP {status} by {self.name}")
        coded = answer.headers.get("Content-Encoding", "identity")
        if coded != "identity":
            raise NotGiven(f"is sent as {coded} by {self.name}, which was not asked for")
        kind = answer.headers.get("Content-Type")
        return Opened(start, size, strong_tag(tag), self._pieces(answer, file), kind)

    def _check_host(self, request: httpx.Request) -> None:
        if self._hosts and request.url.host not in self._hosts:
            raise ProductsRefused(
                [f"Products are not fetched from {request.url.host}; see L2_PRODUCTS_HOSTS"]
            )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def check_address(address: str) -> str:
    """Where products are, as it may be kept: an address is that of a folder, and holds no secret.

    Raises
    ------
    WrongUse
        When it cannot be used; what is secret in it is not shown.
    """
    scheme, slashes, _ = address.partition("://")
    if not slashes or "/" in scheme:
        return address  # a path
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise WrongUse("The address of the products cannot be read.") from None
    if parts.username is not None or parts.password is not None:
        raise WrongUse("The address of the products holds a name or a password; leave them out, it is kept.")
    if parts.scheme not in _SCHEMES:
        raise WrongUse(f"Products come from a folder or by {', '.join(_SCHEMES)}, not by {parts.scheme!r}.")
    if parts.query or parts.fragment:
        raise WrongUse("The address of the products is that of a folder: it has no ? and no #.")
    if bool(parts.hostname) is (parts.scheme == "file"):
        raise WrongUse(
            f"The address {address!r} of the products does not say where; write file:///… or a host."
        )
    return address
