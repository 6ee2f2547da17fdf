"""What the service is handed: the ledger, the queue, gold and the files, read together.

The service itself knows only the ledger and this backend. What may be ordered is in ``orders``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dagster_l2.answers.gold_by_op import GoldByOp
from dagster_l2.answers.live import Live
from dagster_l2.answers.looking import everything_of, history_rows
from dagster_l2.answers.orders import approve_publishing, check_commit, check_writable, place_of_products
from dagster_l2.answers.scanned import Scanned
from dagster_l2.inputs import PICTURE_FILE, PackageUnreadable, package_folder, read_package
from dagster_l2.ledger import Ledger, Present
from dagster_l2.pipeline.gold import BadQuery, NoGold, OpenGold, Row
from dagster_l2.pipeline.metrics import metrics_text
from dagster_l2.pipeline.op_documents import Listing, documents_folder, list_documents, read_document
from dagster_l2.pipeline.queue import OldGold
from dagster_l2.pipeline.receiving import home_of
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.products import QUICKLOOK_FILE
from dagster_l2.settings import Settings

_DATASETS = """
    select
        dataset_id, product_id, instrument, instrument_program_id, start_time, end_time, create_date,
        wavelength_min_nm, wavelength_max_nm, frame_count, stokes, spectral_lines, lines_estimated,
        is_embargoed, embargo_end_date, status, box_x1_arcsec, box_y1_arcsec, box_x2_arcsec, box_y2_arcsec,
        solar_radius_arcsec, fried_parameter_min_m, fried_parameter_p25_m, fried_parameter_median_m,
        fried_parameter_p75_m, fried_parameter_max_m, browse_movie_url
    from datasets
    where op_id = ?
    order by instrument, start_time, dataset_id
"""

_INVERSIONS = """
    select inversion_id, op_id, last_state, claimed_by, claimed_at, inverted_at, published_at, spectral_lines
    from inversions
    order by claimed_at desc, inversion_id
    limit ? offset ?
"""


class Serving:
    """The backend of one installation's service, for as long as a ``with`` block; see `service.Backend`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.ledger: Ledger = open_ledger(settings)
        self._gold = OpenGold(settings.gold)
        self._by_op = GoldByOp(self._gold)
        self._live = Live(self.ledger, self._gold)
        self.scanned = Scanned(self._ask)

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.close()
        self._gold.close()
        self.ledger.close()

    def queue(self) -> list[Row]:
        """See `live.Live.queue`."""
        return self._live.queue()

    def programs(self) -> list[Row]:
        """See `live.Live.programs`."""
        return self._live.programs()

    def program(self, op_id: str) -> Row:
        """Everything about an OP; raises `UnknownOp`."""
        content = everything_of(self._settings, self.ledger, op_id, self._ask, with_quota=False)
        try:
            datasets = self._ask(_DATASETS, [op_id])
        except NoGold:
            datasets = []
        history = history_rows(self.ledger, op_id)
        steps_of: dict[str, list[Row]] = {}
        for step in history:
            if step["inversion_id"]:
                steps_of.setdefault(step["inversion_id"], []).append(step)
        return {
            **content,
            "datasets": datasets,
            "history": history,
            "package": self._package(op_id),
            "inversions": [_inversion(name, op_id, steps) for name, steps in steps_of.items()],
        }

    def picture(self, op_id: str) -> Path | None:
        """The picture of an OP's staged frames."""
        path = package_folder(self._settings.data, op_id) / PICTURE_FILE
        return path if path.is_file() else None

    def quicklook(self, inversion_id: str) -> Path | None:
        """The picture of what an inversion found."""
        path = home_of(self._settings.data, inversion_id) / QUICKLOOK_FILE
        return path if path.is_file() else None

    def inversion(self, inversion_id: str) -> Row | None:
        """One inversion with its steps and hand-overs; None where there is no such one."""
        op_id = self.ledger.op_of_inversion(inversion_id)
        if op_id is None:
            return None
        steps = [step for step in history_rows(self.ledger, op_id) if step["inversion_id"] == inversion_id]
        return {**_inversion(inversion_id, op_id, steps), "steps": steps}

    def inversions(self, offset: int, limit: int) -> tuple[list[Row], int]:
        """Inversions as of the last pass, newest claim first, and how many there are; none before it."""
        try:
            rows = self._ask(_INVERSIONS, [limit, offset])
            return rows, self._ask("select count(*) as number from inversions")[0]["number"]
        except NoGold:
            return [], 0

    def documents(self, since: str | None) -> Listing:
        """See `op_documents.list_documents`."""
        return list_documents(documents_folder(self._settings.lake), since=since)

    def document(self, op_id: str) -> Row | None:
        """See `op_documents.read_document`."""
        return read_document(documents_folder(self._settings.lake), op_id)

    def metrics(self) -> bytes:
        """The figures for a scraper, as Prometheus text."""
        return metrics_text(self.ledger, self._live.queue)

    def check_writable(self) -> None:
        """See `orders.check_writable`."""
        check_writable(self._settings)

    def check_ready(self, products: str, commit: str) -> str:
        """The place of the products; raises `WrongUse` when they are not there or the commit is none."""
        check_commit(commit, "commit")
        return place_of_products(self._settings, products)

    def approve(self, ledger: Ledger, op_id: str, actor: str) -> Present:
        """See `orders.approve_publishing`."""
        return approve_publishing(ledger, op_id, actor=actor)

    def _ask(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        try:
            return self._by_op(query, parameters)
        except BadQuery:
            raise OldGold("Gold was built by an earlier version: `l2 run` builds it anew.") from None

    def _package(self, op_id: str) -> Row | None:
        try:
            return read_package(package_folder(self._settings.data, op_id))
        except PackageUnreadable:
            return None


def _inversion(inversion_id: str, op_id: str, steps: list[Row]) -> Row:
    """What its steps tell of an inversion; a later word counts more than an earlier."""
    said: Row = {}
    for step in steps:
        said |= {name: value for name, value in step["details"].items() if value is not None}

    def first(state: str) -> Any:
        return next((step["occurred_at"] for step in steps if step["to_state"] == state), None)

    return {
        "inversion_id": inversion_id,
        "op_id": op_id,
        "state": steps[-1]["to_state"],
        "ended_at": steps[-1]["ended_at"],
        "instrument_program_id": said.get("instrument_program_id"),
        "claimed_by": said.get("claimed_by"),
        "claimed_at": first("Working"),
        "inverted_at": first("Inverted"),
        "published_at": first("Published"),
        "dataset_ids": said.get("dataset_ids", []),
        "spectral_lines": said.get("spectral_lines", []),
        "commit": said.get("commit"),
        "bucket": said.get("bucket"),
        "products": said.get("products", []),
    }
