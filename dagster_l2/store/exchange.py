"""One request to the store and its answer: sent at the shared pace, checked, asked again while that may help.

What is asked, and what an answer holds, is in ``client``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx

from dagster_l2.base.telemetry import count
from dagster_l2.store.errors import (
    StoreAnswerInvalid,
    StoreError,
    StoreQueryError,
    StoreRefused,
    StoreTurnedDown,
    StoreUnreachable,
)
from dagster_l2.store.pace import Pace
from dagster_l2.store.page import loads
from dagster_l2.store.wire import one_line, retry_after

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

_LONGEST_WAIT_S = 30.0


class Exchange:
    """Requests to one address; the parameters are those of `StoreClient`."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        timeout_s: float,
        attempts: int,
        first_wait_s: float,
        patience_s: float,
        pace: Pace | None,
    ) -> None:
        self.url = url
        self._attempts = attempts
        self._first_wait_s = first_wait_s
        self._patience_s = patience_s
        self._pace = pace
        try:
            self.http = httpx.Client(
                base_url=url,
                headers={"Authorization": token} if token else {},
                timeout=httpx.Timeout(timeout_s, connect=10.0),
            )
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise StoreError(
                f"The store address {url!r} is not usable ({error}); set L2_STORE_URL."
            ) from None

    def persist(self, ask: Callable[[], _T]) -> _T:
        """Ask until there is an answer, as long as tries and patience last."""
        failures = refusals = 0
        first_refused: float | None = None
        said: StoreError
        while True:
            try:
                return ask()
            except StoreTurnedDown as error:
                now = time.monotonic()
                first_refused = now if first_refused is None else first_refused
                refusals += 1
                count("turned_down")
                wait = self._wait(refusals, error)
                if now + wait - first_refused > self._patience_s:
                    raise
                said = error
            except StoreError as error:
                failures += 1
                if not error.transient or failures >= self._attempts:
                    raise
                wait = self._wait(failures, error)
                said = error
            count(f"retries_{said.cause}")
            _LOG.info("%s It is asked again in %.1f s.", said, wait, extra={"cause": said.cause})
            time.sleep(wait)

    def send(self, method: str, path: str, **request: Any) -> bytes:
        """Send one request, once; the body of an answer with HTTP 200."""
        if method == "POST":
            request["headers"] = {"Content-Type": "application/json"}
        granted = self._pace.acquire() if self._pace else 0.0
        count("api_requests")
        try:
            response = self.http.request(method, path, **request)
        except httpx.ConnectError as error:
            raise StoreUnreachable(
                f"The store at {self.url} does not answer ({one_line(error)});"
                " is it up, and is L2_STORE_URL right?",
                cause="no_connection",
            ) from None
        except httpx.TimeoutException:
            raise StoreUnreachable(
                f"The store at {self.url} did not answer in time; try again later.", cause="timeout"
            ) from None
        except httpx.HTTPError as error:
            raise StoreUnreachable(
                f"The answer of the store at {self.url} broke off ({one_line(error)}).", cause="broken_off"
            ) from None
        count("received_bytes", len(response.content))
        self._tell_pace(granted, response)
        self._check_status(response)
        return response.content

    def data(self, content: bytes) -> dict[str, Any]:
        """The data of a GraphQL answer."""
        answer = self.json(content)
        errors = answer.get("errors")
        if errors:
            first = errors[0] if isinstance(errors, list) and errors else errors
            message = first.get("message", first) if isinstance(first, dict) else first
            raise StoreQueryError(f"The store at {self.url} answered with an error: {one_line(message)}")
        data = answer.get("data")
        if not isinstance(data, dict):
            raise StoreAnswerInvalid(f"The store at {self.url} answered without data.")
        return data

    def json(self, content: bytes) -> dict[str, Any]:
        """The JSON object of an answer."""
        try:
            answer = loads(content)
        except ValueError:
            what = "a web page" if content.lstrip()[:1] == b"<" else "something that is not JSON"
            raise StoreAnswerInvalid(
                f"The store at {self.url} answered with {what}; is L2_STORE_URL right?"
            ) from None
        if not isinstance(answer, dict):
            raise StoreAnswerInvalid(f"The store at {self.url} answered JSON that is no object.")
        return answer

    def listed(self, data: Mapping[str, Any], name: str) -> list[Any]:
        """A list of records in the data of an answer."""
        records = data.get(name)
        if not isinstance(records, list):
            raise StoreAnswerInvalid(f"The store at {self.url} answered {name} without a list of records.")
        return records

    def _tell_pace(self, granted: float, response: httpx.Response) -> None:
        if self._pace is None:
            return
        if response.status_code in (429, 503):
            self._pace.congested(granted, response.headers)
        elif response.status_code < 500:
            self._pace.succeeded(granted, response.headers)

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in (401, 403):
            raise StoreRefused(
                f"The store at {self.url} refused the token (HTTP {status}); set L2_STORE_TOKEN."
            )
        if status == 429 or status >= 500 or status == 408:
            overloaded = (StoreTurnedDown if status == 429 else StoreUnreachable)(
                f"The store at {self.url} is overloaded or failing (HTTP {status})."
            )
            overloaded.retry_after_s = retry_after(response)
            raise overloaded
        if status != 200:
            raise StoreError(
                f"The store at {self.url} answered HTTP {status} to a {response.request.method}."
            )

    def _wait(self, failures: int, error: StoreError) -> float:
        backoff = min(_LONGEST_WAIT_S, self._first_wait_s * 2.0 ** min(failures - 1, 20))
        if self._pace is not None and isinstance(error, StoreTurnedDown):
            # The pace knows the Retry-After, and waits for all who share it.
            return min(backoff, 1.0)
        return max(backoff, getattr(error, "retry_after_s", None) or 0.0)
