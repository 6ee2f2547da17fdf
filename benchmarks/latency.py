"""Ready events dropped at once, to Published: time and processor time per inversion, and the peak of memory.

The steps of a hand-over run in one process with the local store: verify, take home, picture, copy, messages,
create, read back. Dagster's run and the dbt builds around it are not in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dagster_l2.ledger import Ledger, State, Verdict
from dagster_l2.pipeline.intake import take_files
from dagster_l2.pipeline.receiving import Places
from dagster_l2.pipeline.steps import publish_inverted, settle_events
from dagster_l2.products import SyntheticShape, write_products
from dagster_l2.publishing import Outbox, PublishArea
from dagster_l2.store import StoreClient
from dagster_l2.store.server import LocalStoreServer, generate, store_app

BY: dict[str, Any] = {"actor": "bench", "run_id": None}


def working(ledger: Ledger, data: Path, op_id: str, record: dict[str, Any]) -> Path:
    """Bring an invertible OP to Working; the folder of its products, which are there."""
    lines = ["Fe I (630.15 nm)"]
    dataset = {"dataset_id": record["datasetId"], "bucket": "data", "spectral_lines": lines}
    package = {
        "schema_version": 1,
        "op_id": op_id,
        "proposal_id": record["primaryProposalId"],
        "instrument_program_id": record["instrumentProgramExecutionId"],
        "groups": [{"arm": None, "spectral_lines": lines, "datasets": [dataset]}],
    }
    folder = data / "inputs" / op_id
    folder.mkdir(parents=True)
    (folder / "inputs.json").write_text(json.dumps(package))
    details = {
        "package": f"inputs/{op_id}/inputs.json",
        "instrument_program_id": package["instrument_program_id"],
        "dataset_ids": [record["datasetId"]],
        "spectral_lines": lines,
        "buckets": ["data"],
    }
    ledger.record_preprocessed(op_id, inputs_hash="h", details=details, run_id=None, actor="bench")
    inversion_id = str(ledger.claim(op_id, actor="ana").inversion_id)
    place = data / "there" / op_id
    return write_products(
        place, op_id=op_id, inversion_id=inversion_id, lines=lines, seed=1, shape=SyntheticShape()
    )


def drop(data: Path, number: int, op_id: str, place: Path) -> None:
    """Drop the ready event of an OP."""
    event = {
        "event_id": f"e{number}",
        "op_id": op_id,
        "products": str(place),
        "commit": "c0ffee1",
        "actor": "ana",
    }
    inbox = data / "inbox"
    inbox.mkdir(exist_ok=True)
    (inbox / f"e{number}.json").write_text(json.dumps(event))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=50)
    given = parser.parse_args()
    records = generate(3, seed=1)
    record = next(one for one in records.datasets if one.get("instrumentName") == "VISP")
    record |= {"isEmbargoed": False, "embargoEndDate": None}
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary)
        app = store_app(records, inversions_file=data / "inversions.sqlite")
        with LocalStoreServer(app) as server, Ledger.open(f"sqlite:///{data}/l2.sqlite") as ledger:
            ops = [f"op{number}" for number in range(given.events)]
            found = [Verdict(op, True, True, True, inputs_hash="h", rule_version="r") for op in ops]
            ledger.decide(found, actor="bench")
            for number, op_id in enumerate(ops):
                drop(data, number, op_id, working(ledger, data, op_id, record))
            began, worked = time.perf_counter(), time.process_time()
            taken = list(take_files(ledger, data / "inbox", frozenset()))
            settled = settle_events(ledger, data, places=Places(may_be_synthetic=True), **BY)
            seconds_settled = time.perf_counter() - began
            out = publish_inverted(
                ledger,
                lambda: StoreClient(server.url),
                data,
                area=PublishArea(data / "published"),
                bus=Outbox(data / "published" / "outbox"),
                mode="auto",
                default_bucket="data",
                publish_embargoed=False,
                now=datetime.now(UTC),
                **BY,
            )
            seconds, processor = time.perf_counter() - began, time.process_time() - worked
            states = [present.state for present in ledger.present_all().values()]
            with StoreClient(server.url) as client:
                published = [one["inversionId"] for one in client.inversions()]
    print(f"{len(taken)} events, {len(settled.done)} verified, {len(out.done)} published")
    for op_id, reason in (*settled.refused, *settled.failed, *out.refused, *out.failed):
        print(f"{op_id}: {reason}")
    assert states == [State.PUBLISHED] * given.events
    assert len(published) == len(set(published)) == given.events
    each = f"{seconds / given.events:.3f} s each, {processor / given.events:.3f} s of processor"
    print(f"{seconds:.1f} s, of it {seconds_settled:.1f} until Inverted; {each}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
