"""A store, a disk and a ledger with three OPs, and the steps that a pass takes with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dagster_l2.base.files import sha256
from dagster_l2.ledger import Ledger, Verdict
from dagster_l2.pipeline.receiving import Places
from dagster_l2.pipeline.steps import StepReport, prepare_inputs, publish_inverted, settle_events
from dagster_l2.products import SyntheticShape, write_products
from dagster_l2.publishing import Outbox, PublishArea
from dagster_l2.store import StoreClient
from tests.end_to_end.kit import TOKEN, Row, Store

CREATE = "createL2InversionInventory"
LINES = ["Fe I (630.15 nm)"]
STEP = {"actor": "pipeline", "run_id": "r"}


@dataclass
class World:
    """A store with the datasets of some OPs, the rows that the warehouse has of them, and a ledger."""

    data: Path
    store: Store
    ledger: Ledger
    rows: dict[str, Row]
    settings: dict[str, str]
    reports: list[StepReport] = field(default_factory=list)

    def decide(self) -> None:
        verdicts = [
            Verdict(op_id, True, True, True, inputs_hash="h", rule_version="r") for op_id in self.rows
        ]
        self.ledger.decide(verdicts, actor="pipeline")

    def prepare(self) -> StepReport:
        return prepare_inputs(self.ledger, self.data, self.rows.values(), **STEP)

    def verify(self) -> StepReport:
        places = Places(may_be_synthetic=True)
        return settle_events(self.ledger, self.data, places=places, **STEP)

    def publish(self) -> StepReport:
        def client() -> StoreClient:
            return StoreClient(self.settings["L2_STORE_URL"], token=TOKEN, attempts=1, patience_s=0.1)

        now = datetime.now(UTC)
        rules = {"mode": "auto", "default_bucket": "data", "publish_embargoed": False, "now": now}
        out = self.data / "published"
        rules |= {"area": PublishArea(out), "bus": Outbox(out / "outbox")}
        return publish_inverted(self.ledger, client, self.data, **rules, **STEP)

    def hand_over(self, op_id: str, wrong_sum_of: str | None = None) -> Path:
        inversion = str(self.ledger.claim(op_id, actor="ann").inversion_id)
        folder = self.data.parent / "inbox" / op_id
        shape = SyntheticShape(depth=3, wavelengths=8, y=4, x=4)
        write_products(folder, op_id=op_id, inversion_id=inversion, lines=LINES, seed=1, shape=shape)
        sums = {path.name: sha256(path) for path in folder.glob("*.fits")}
        if wrong_sum_of is not None:
            sums[wrong_sum_of] = "0" * 64
        self.ledger.submit_ready(
            op_id, products=str(folder), commit_hash="c0ffee1", actor="ann", checksums=sums
        )
        return folder

    def states(self, op_id: str) -> list[str]:
        return [str(row.to_state) for row in self.ledger.history(op_id)]

    def error(self, op_id: str) -> tuple[Any, ...]:
        """State, step, class and tries of an OP in Error."""
        present = self.ledger.present(op_id)
        return (str(present.state), *(present.details.get(name) for name in ("step", "class", "tries")))


def a_row(op_id: str, record: Row) -> Row:
    return {
        "op_id": op_id,
        "dataset_id": record["datasetId"],
        "instrument_program_id": record["instrumentProgramExecutionId"],
        "proposal_id": record["primaryProposalId"],
        "frame_count": record["frameCount"],
        "spectral_lines": LINES,
        "bucket": record["bucket"],
    }


def in_the_way(path: Path) -> Path:
    """Let no folder be made here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    return path
