"""The client of the UDL's space-environment observations: pages, counts, and patience with a busy server.

It hands out records as the server sent them; what they hold is in ``reach_records``. How fast it may ask
is the pace's, which it is given.
"""

from __future__ import annotations

import json
import logging
import random
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import orjson

from dagster_l2.base.telemetry import count
from dagster_l2.batch import SYSTEM_CLOCK, Clock, Pace
from dagster_l2.sources.udl_address import PATH, headers_of, without_secrets
from dagster_l2.sources.udl_errors import (
    CountMismatch,
    UdlAnswerInvalid,
    UdlError,
    UdlRefused,
    UdlStopped,
    UdlTurnedDown,
    UdlUnreachable,
)

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)

PAGE_SIZE = 10_000
"""The most that the UDL sends in one answer."""

_COUNT_TRIES = 3
_TELL_AFTER_S, _TELL_EVERY_S = 10.0, 60.0
_ERROR_BODY = 65_536


@dataclass(frozen=True, slots=True)
class Question:
    """Which observations are wanted. Both ends of the span are asked for; no sensor means all."""

    start: datetime
    end: datetime
    descriptor: str
    sensor: str | None = None
    source: str = "Aerospace"
    data_mode: str = "REAL"

    def parameters(self) -> dict[str, str]:
        """As the UDL takes it."""
        sensor = {} if self.sensor is None else {"idSensor": self.sensor}
        return {
            "obTime": f"{_text(self.start)}..{_text(self.end)}",
            **sensor,
            "source": self.source,
            "dataMode": self.data_mode,
            "descriptor": self.descriptor,
        }


@dataclass(frozen=True)
class Observed:
    """The records of a question, how many bytes they were, and the server's own count if it was asked."""

    records: list[Any]
    bytes: int
    count: int | None = None


class UdlClient:
    """Ask one UDL; safe to use from several threads.

    Parameters
    ----------
    url
        Base address. A name and password in it become the token when none is given, and are shown nowhere.
    token
        What follows ``Basic`` in the ``Authorization`` header (or all of it), sent as it is.
    pace
        Asked for every request, and told how it went; waiting after 429 and 503 is its business.
    timeout_s, total_timeout_s
        Seconds that one read may stall, and that one answer may take in all.
    budget_s
        Seconds that the failing tries of one request and the waits between them may take together. Being
        turned down (429) is no failing try.
    patience_s
        Seconds after which being turned down again and again is a failure.
    first_wait_s, longest_wait_s
        Waits between failing tries; each doubles the one before.
    page_size
        Records asked for at once.
    clock
        What it counts time and waits by.

    Raises
    ------
    UdlRefused
        When address or token cannot be sent, or are refused.
    UdlError
        Every method raises one of its subclasses, with one sentence that names the UDL.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        pace: Pace,
        timeout_s: float = 60.0,
        total_timeout_s: float = 600.0,
        budget_s: float = 900.0,
        patience_s: float = 3600.0,
        first_wait_s: float = 0.5,
        longest_wait_s: float = 30.0,
        page_size: int = PAGE_SIZE,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.url, secret = without_secrets(url)
        headers = headers_of(token or secret)
        del url, token, secret  # so that a traceback that shows variables does not show them
        if not self.url:
            raise UdlRefused("The address of the UDL is not usable; set L2_UDL_URL to one like https://host.")
        if headers is None:
            raise UdlRefused("The token of the UDL holds what no header can carry; set L2_UDL_TOKEN anew.")
        self.page_size = page_size
        self._pace = pace
        self._clock = clock
        self._total_timeout_s = total_timeout_s
        self._budget_s = budget_s
        self._patience_s = patience_s
        self._first_wait_s = first_wait_s
        self._longest_wait_s = longest_wait_s
        self._closed = threading.Event()
        self._tell_from = float("-inf")
        self._learning = threading.Lock()
        self._longest = 0
        self._probed: set[int] = set()
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s), pool=None),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"UdlClient({self.url!r})"

    def close(self) -> None:
        """Close the connections; who waits in another thread stops with `UdlStopped`."""
        self._closed.set()
        self._http.close()

    def count(self, question: Question) -> int:
        """How many records the UDL says it holds."""
        return self._get(f"{PATH}/count", question.parameters(), self._number)[0]

    def observations(self, question: Question, *, is_counted: bool = False) -> Observed:
        """All records of a question.

        One page that was not cut needs no count; all others are compared with the server's own count
        before and after.

        Parameters
        ----------
        question
            What is wanted.
        is_counted
            Ask for the count in any case.

        Raises
        ------
        CountMismatch
            When the number stays another one; a record that arrives meanwhile is no mismatch.
        """
        page, size = self._page(question, 0)
        if not is_counted and self._is_whole(question, len(page)):
            return Observed(page, size)
        for number in range(_COUNT_TRIES):
            before = self.count(question)
            if number:
                page, size = self._page(question, 0)
            records, size = self._rest(question, page, size, before)
            if len(records) == before:
                return Observed(records, size, before)
            after = self.count(question)
            if len(records) == after > before:
                return Observed(records, size, after)
        raise CountMismatch(
            f"The UDL at {self.url} counts {after} observations in {question.parameters()['obTime']} and"
            f" sends {len(records)}; it may be settled later, try again."
        )

    def _is_whole(self, question: Question, records: int) -> bool:
        """Whether a first page cannot have been cut by a limit of the server that is below the page size.

        It cannot where the server once sent a longer one. So that one is seen, a span twice as long is
        asked for, once for each length that stands in question: a count for every chunk would double
        the requests of a day.
        """
        if records == 0 or records >= self.page_size:
            return records == 0
        with self._learning:
            if records >= self._longest and records not in self._probed:
                self._probed.add(records)
                wider = replace(question, start=question.start - (question.end - question.start))
                try:
                    self._page(wider, 0)
                except (UdlRefused, UdlStopped):
                    raise
                except UdlError:
                    pass  # What is wrong with the wider span is not this question's; then it is counted.
            return records < self._longest

    def _rest(self, question: Question, page: list[Any], size: int, count: int) -> tuple[list[Any], int]:
        """The pages after the first, and each record once: pages shift when one arrives meanwhile."""
        records, is_paged = list(page), False
        while page and len(records) < count:
            page, more = self._page(question, len(records))
            records += page
            size += more
            is_paged = True
        return (_once_each(records) if is_paged else records), size

    def _page(self, question: Question, first: int) -> tuple[list[Any], int]:
        parameters = {**question.parameters(), "sort": "obTime", "maxResults": str(self.page_size)}
        if first:
            parameters["firstResult"] = str(first)
        page, size = self._get(PATH, parameters, self._list)
        self._longest = max(self._longest, len(page))
        return page, size

    def _get(self, path: str, parameters: Mapping[str, str], read: Callable[[bytes], _T]) -> tuple[_T, int]:
        """Ask until there is an answer, as long as budget and patience last."""
        failed_s, failures, refusals = 0.0, 0, 0
        first_refused: float | None = None
        said: UdlUnreachable
        while True:
            granted = self._pace.acquire()
            began = self._clock.monotonic()
            try:
                body = self._send(path, parameters, granted)
                return read(body), len(body)
            except UdlTurnedDown as error:
                first_refused = began if first_refused is None else first_refused
                refusals += 1
                count("turned_down")
                wait = min(1.0, 0.01 * 2.0 ** min(refusals, 10))
                if self._clock.monotonic() + wait - first_refused > self._patience_s:
                    raise
                said = error
            except UdlUnreachable as error:
                failures += 1
                wait = min(self._longest_wait_s, self._first_wait_s * 2.0 ** min(failures - 1, 20))
                wait *= random.uniform(0.5, 1.0)
                failed_s += self._clock.monotonic() - began + wait
                if failed_s > self._budget_s:
                    raise
                said = error
            count(f"retries_{said.cause}")
            self._tell(said, wait, is_long=failed_s > _TELL_AFTER_S)
            if self._clock.wait(self._closed, wait):
                raise UdlStopped(f"The UDL at {self.url} was not asked again: the download stops.")

    def _tell(self, said: UdlUnreachable, wait: float, *, is_long: bool) -> None:
        """Who looks on is warned when it goes on, once a minute however many wait."""
        now, level = self._clock.monotonic(), logging.INFO
        if is_long and now >= self._tell_from:
            self._tell_from, level = now + _TELL_EVERY_S, logging.WARNING
        _LOG.log(level, "%s It is asked again in %.1f s.", said, wait, extra={"cause": said.cause})

    def _send(self, path: str, parameters: Mapping[str, str], granted: float) -> bytes:
        if self._closed.is_set():
            raise UdlStopped(f"The UDL at {self.url} was not asked: the download stops.")
        count("api_requests")
        try:
            with self._http.stream("GET", path, params=parameters) as response:
                if response.status_code != 200:
                    self._raise_for(response, granted)
                body = self._read(response)
        except httpx.ConnectError as error:
            raise UdlUnreachable(
                f"The UDL at {self.url} does not answer ({_one_line(error)});"
                " is it up, and is L2_UDL_URL right?",
                cause="no_connection",
            ) from None
        except httpx.TimeoutException:
            raise UdlUnreachable(
                f"The UDL at {self.url} did not answer in time; try again later.", cause="timeout"
            ) from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise UdlUnreachable(
                f"The answer of the UDL at {self.url} broke off ({_one_line(error)}); try again later.",
                cause="broken_off",
            ) from None
        except RuntimeError:
            if self._closed.is_set():
                raise UdlStopped(f"The UDL at {self.url} was not asked: the download stops.") from None
            raise
        self._pace.succeeded(granted, response.headers)
        return body

    def _read(self, response: httpx.Response, most: int | None = None) -> bytes:
        began, parts, size = self._clock.monotonic(), [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            count("received_bytes", len(part))
            if most is not None and size >= most:
                break
            if self._clock.monotonic() - began > self._total_timeout_s:
                raise httpx.ReadTimeout("the answer did not end", request=response.request)
            if self._closed.is_set():
                raise UdlStopped(f"The answer of the UDL at {self.url} was not read: the download stops.")
        return b"".join(parts)

    def _raise_for(self, response: httpx.Response, granted: float) -> None:
        status = response.status_code
        if status in (429, 503):
            self._pace.congested(granted, response.headers)
        if status == 429:
            raise UdlTurnedDown(f"The UDL at {self.url} has too many requests (HTTP 429); try again later.")
        if status in (401, 403):
            raise UdlRefused(f"The UDL at {self.url} refused the token (HTTP {status}); set L2_UDL_TOKEN.")
        if status == 408 or status >= 500:
            raise UdlUnreachable(
                f"The UDL at {self.url} is failing (HTTP {status}); try again later.", cause="server_error"
            )
        if status < 300:
            raise UdlAnswerInvalid(
                f"The UDL at {self.url} answered HTTP {status} where only 200 has records; try again later."
            )
        if status == 400:
            raise UdlError(f"The UDL at {self.url} refused the question (HTTP 400): {self._said(response)}")
        # A missing address is no empty answer, and a redirect would take the token somewhere else.
        raise UdlError(f"The UDL at {self.url} answered HTTP {status}; is L2_UDL_URL right?")

    def _said(self, response: httpx.Response) -> str:
        try:
            text = self._read(response, _ERROR_BODY).decode("utf-8", "replace")
        except (httpx.HTTPError, httpx.StreamError):
            return "without a reason."
        secret = self._http.headers.get("Authorization", "").removeprefix("Basic ")
        return _one_line(text.replace(secret, "…") if secret else text) or "without a reason."

    def _list(self, body: bytes) -> list[Any]:
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            # One record with NaN or a lone surrogate must not take its page with it; orjson refuses both.
            try:
                answer = json.loads(body)
            except (ValueError, RecursionError):
                what = "a web page" if body.lstrip()[:1] == b"<" else "something that is not JSON"
                raise UdlAnswerInvalid(
                    f"The UDL at {self.url} answered with {what}; is L2_UDL_URL right?"
                ) from None
        if not isinstance(answer, list):
            raise UdlAnswerInvalid(f"The UDL at {self.url} answered JSON that is no list; try again later.")
        return answer

    def _number(self, body: bytes) -> int:
        text = body.strip()
        if not re.fullmatch(rb"[0-9]{1,15}", text):
            raise UdlAnswerInvalid(
                f"The UDL at {self.url} answered a count that is no number; try again later."
            )
        return int(text)


def _once_each(records: Sequence[Any]) -> list[Any]:
    seen: dict[object, Any] = {}
    for i, record in enumerate(records):
        identifier = record.get("id") if isinstance(record, dict) else None
        seen.setdefault(identifier if isinstance(identifier, str) else i, record)
    return list(seen.values())


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
