"""The service: the ledger over HTTP for the science side's machines and for people, by personal tokens.

What it is asked and what it answers is here; the orders are the ledger's own, gold and files are handed in.
"""

from dagster_l2.service.app import service_app
from dagster_l2.service.backend import Backend, Limits
from dagster_l2.service.running import RunningService, ServiceFailed, serve

__all__ = ["Backend", "Limits", "RunningService", "ServiceFailed", "serve", "service_app"]
