"""What the client needs of a limiter of requests: only the contract, whose makings are in ``batch``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Pace(Protocol):
    """The permission to send requests, shared by all who talk to one server."""

    def acquire(self) -> float:
        """Wait until one request may be sent; gives the moment of the grant."""

    def succeeded(self, granted_at: float, headers: Mapping[str, str]) -> None:
        """Tell that the request granted then was answered."""

    def congested(self, granted_at: float, headers: Mapping[str, str]) -> None:
        """Tell that the request granted then was turned down for load."""
