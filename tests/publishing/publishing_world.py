"""One store and one ledger for a test of publishing, with the steps that bring an OP to Inverted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dagster_l2.base.files import sha256, write_durably
from dagster_l2.ledger import Ledger, State, Verdict
from dagster_l2.publishing import Outbox, PublishArea, Publisher, PublishResult, ReleaseFile
from dagster_l2.store import StoreClient
from dagster_l2.store.server import Faults

OP = "eid_1_118_opAvoqBr_R001.82591.13964206"
PROPOSAL = "pid_1_118"
PACKAGE: dict[str, Any] = {
    "package": "inputs/op/inputs.json",
    "instrument_program_id": "id.82591.123456",
    "dataset_ids": ["BBBBB", "AAAAA"],
    "spectral_lines": ["Fe I (630.15 nm)", "Ca II (854.21 nm)"],
    "buckets": ["data"],
}


@dataclass(frozen=True)
class World:
    """One store, one ledger, and how to open more of both as another process would."""

    store_url: str
    ledger_url: str
    schema: str
    faults: Faults
    inversions_file: Path
    ledger: Ledger
    store: StoreClient
    requests: list[Any] = field(default_factory=list)

    def open_ledger(self) -> Ledger:
        return Ledger.open(self.ledger_url, schema=self.schema)

    def open_store(self, **changes: Any) -> StoreClient:
        return StoreClient(
            self.store_url,
            **{"attempts": 2, "first_wait_s": 0.01, "timeout_s": 5.0, "patience_s": 0.1, **changes},
        )

    @property
    def folder(self) -> Path:
        return self.inversions_file.parent

    def publisher(
        self,
        default_bucket: str | None = None,
        *,
        store: StoreClient | None = None,
        ledger: Ledger | None = None,
        area: str = "area",
    ) -> Publisher:
        """``area``: of publishers with different ones none waits for another, as on separate machines."""
        return Publisher(
            store or self.store,
            ledger or self.ledger,
            default_bucket,
            area=PublishArea(self.folder / area),
            bus=Outbox(self.folder / "outbox"),
        )

    def files(self, names: tuple[str, ...] = ("a.fits", "b.fits", "all.asdf")) -> list[ReleaseFile]:
        """Files to be published, the last one standing for all."""
        made = []
        for name in names:
            path = self.folder / "home" / name
            write_durably(path, lambda temporary, name=name: temporary.write_bytes(name.encode() * 99))
            made.append(ReleaseFile(path, name, path.stat().st_size, sha256(path), name.endswith(".asdf")))
        return made

    def messages(self) -> list[dict[str, Any]]:
        """What the catalog was told."""
        outbox = sorted((self.folder / "outbox").rglob("*.json"))
        return [json.loads(path.read_text()) for path in outbox]

    def inverted(self, op_id: str = OP, *, datasets: list[str] | None = None, **changes: Any) -> str:
        """Bring an OP to Inverted the way the pipeline does; the inversion id."""
        verdict = Verdict(op_id, True, True, True, inputs_hash="h1", rule_version="r1")
        self.ledger.decide([verdict], actor="pipeline")
        self.ledger.record_preprocessed(
            op_id, inputs_hash="h1", details={**PACKAGE, **changes}, run_id=None, actor="pipeline"
        )
        self.ledger.claim(op_id, actor="ana")
        event = self.ledger.submit_ready(
            op_id, products="there", commit_hash="c0ffee", actor="ana", dataset_ids=datasets
        )
        outcome = self.ledger.settle(event, lambda _: {"products": {}}, run_id=None, actor="pipeline")
        assert outcome.is_accepted
        inversion_id = self.ledger.present(op_id).inversion_id
        assert inversion_id is not None
        return inversion_id

    def published(self) -> list[dict[str, Any]]:
        """What the store answers, asked by a client of its own."""
        with self.open_store() as client:
            return client.inversions()

    def states(self, op_id: str = OP) -> list[State]:
        return [row.to_state for row in self.ledger.history(op_id)]

    def creates(self) -> int:
        """How many creates the store was asked for."""
        return sum("createL2InversionInventory" in str(request) for request in self.requests)


def publish(
    world: World,
    publisher: Publisher | None = None,
    op_id: str = OP,
    files: Sequence[ReleaseFile] = (),
) -> PublishResult:
    publisher = publisher or world.publisher()
    return publisher.publish(op_id, proposal_id=PROPOSAL, actor="pipeline", run_id="run-1", files=files)


def other_record(inversion_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "inversionId": inversion_id,
        "primaryProposalId": PROPOSAL,
        "instrumentProgramExecutionId": "id.82591.123456",
        "bucket": "data",
        "datasetIds": ["AAAAA", "BBBBB"],
        "spectralLines": ["Ca II (854.21 nm)", "Fe I (630.15 nm)"],
        **changes,
    }
