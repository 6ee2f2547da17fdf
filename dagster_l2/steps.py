"""One step of the pipeline for all observing programs that wait for it, composed from the rooms.

Level-triggered: each compares what the ledger has with what should be, and one OP that fails stops no
other. No Dagster and no printing here; the rules are in the rooms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dagster_l2.errors import L2Error
from dagster_l2.files import AlreadyRunning, safe_name
from dagster_l2.holds import is_approved, note_waiting
from dagster_l2.inputs import (
    PackageRefused,
    build_package,
    package_details,
    package_folder,
    read_package,
    write_package,
)
from dagster_l2.ledger import Conflict, Ledger, Present, ScienceEvent, State
from dagster_l2.products import ProductsRefused, quicklook, take_home, verify
from dagster_l2.publishing import Publisher, publish_blocker
from dagster_l2.store import StoreClient, StoreError


@dataclass
class StepReport:
    """What a step did: ids that are done, and (op_id, reason) of those that were refused or failed."""

    done: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    picture: bytes | None = None


def prepare_inputs(
    ledger: Ledger, data: Path, datasets: Iterable[Mapping[str, Any]], *, actor: str, run_id: str | None
) -> StepReport:
    """Write the input package of every Invertible OP and record it as Preprocessed.

    Parameters
    ----------
    datasets
        Rows of ``int_input_datasets``, for all OPs.
    """
    report = StepReport()
    by_op: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in datasets:
        by_op[row["op_id"]].append(row)
    waiting = [present for present in ledger.present_all().values() if present.state is State.INVERTIBLE]
    for present in sorted(waiting, key=lambda present: present.op_id):
        try:
            _prepare(ledger, data, present, by_op[present.op_id], actor=actor, run_id=run_id)
            report.done.append(present.op_id)
        except Conflict as error:
            report.refused.append((present.op_id, str(error)))
        except PackageRefused as error:
            ledger.fail(
                present.op_id,
                step="preprocess",
                error_class="permanent",
                message=str(error),
                actor=actor,
                run_id=run_id,
            )
            report.failed.append((present.op_id, str(error)))
    return report


def _prepare(
    ledger: Ledger,
    data: Path,
    present: Present,
    datasets: list[Mapping[str, Any]],
    *,
    actor: str,
    run_id: str | None,
) -> None:
    package = build_package(
        present.op_id,
        datasets,
        inputs_hash=str(present.inputs_hash),
        rule_version=str(present.rule_version),
        created_at=datetime.now(UTC),
    )
    write_package(package_folder(data, present.op_id), package)
    ledger.record_preprocessed(
        present.op_id,
        inputs_hash=str(present.inputs_hash),
        details=package_details(package),
        run_id=run_id,
        actor=actor,
    )


def settle_events(ledger: Ledger, data: Path, *, actor: str, run_id: str | None) -> StepReport:
    """Verify the products of every science-ready event without an outcome, and take them home."""
    report = StepReport()

    def check(event: ScienceEvent) -> dict[str, Any]:
        folder = Path(event.products)
        verified = verify(
            folder, op_id=event.op_id, inversion_id=event.inversion_id, dataset_ids=event.dataset_ids
        )
        home = data / "products" / safe_name(event.inversion_id)
        take_home(folder, home, verified)
        report.picture = quicklook(home)
        plain = verified.as_dict()
        package = read_package(package_folder(data, event.op_id))
        return {
            **package_details(package, event.dataset_ids),
            "products": plain["files"],
            "synthetic": plain["synthetic"],
            "findings": plain["findings"],
        }

    for event in ledger.pending_events():
        try:
            outcome = ledger.settle(event, check, run_id=run_id, actor=actor, refusals=(ProductsRefused,))
        except AlreadyRunning:
            continue  # another run takes these products home and settles the event
        except L2Error as error:
            report.failed.append((event.op_id, str(error)))
            continue
        if outcome.is_accepted:
            report.done.append(event.inversion_id)
        else:
            report.refused.append((event.op_id, outcome.reason or ""))
    return report


def publish_inverted(
    ledger: Ledger,
    open_store: Callable[[], AbstractContextManager[StoreClient]],
    *,
    mode: Literal["auto", "approve"],
    default_bucket: str | None,
    publish_embargoed: bool,
    now: datetime,
    actor: str,
    run_id: str | None,
) -> StepReport:
    """Publish every Inverted OP that nothing holds back; what holds one back is noted on it once.

    The embargo is asked of the store at this moment: what the last scan saw may be hours old.
    """
    report = StepReport()
    waiting = [present for present in ledger.present_all().values() if present.state is State.INVERTED]
    if not waiting:
        return report
    with open_store() as store:
        publisher = Publisher(store, ledger, default_bucket)
        for present in sorted(waiting, key=lambda present: present.since):
            try:
                records = _inverted_records(store, present)
                reason = _held_back(ledger, present, records, mode, publish_embargoed, now)
                if reason is not None:
                    note_waiting(ledger, present, reason, actor=actor)
                    report.refused.append((present.op_id, reason))
                    continue
                publisher.publish(
                    present.op_id, proposal_id=records[0]["primaryProposalId"], actor=actor, run_id=run_id
                )
                report.done.append(str(present.inversion_id))
            except L2Error as error:
                report.failed.append((present.op_id, str(error)))
                if isinstance(error, StoreError) and error.transient:
                    break  # the store is down: asking for each OP would take as long as all its tries
    return report


def _inverted_records(store: StoreClient, present: Present) -> list[dict[str, Any]]:
    dataset_ids = list(present.details["dataset_ids"])
    # An empty list would mean no filter, and so every record of the store.
    return store.datasets({"datasetIds": dataset_ids}) if dataset_ids else []


def _held_back(
    ledger: Ledger,
    present: Present,
    records: list[dict[str, Any]],
    mode: Literal["auto", "approve"],
    publish_embargoed: bool,
    now: datetime,
) -> str | None:
    if not records:
        return "none of its datasets is in the store"
    gone = sorted(set(present.details["dataset_ids"]) - {record["datasetId"] for record in records})
    if gone:
        return f"dataset {gone[0]} is no longer in the store"
    # Each dataset by itself: one embargo that has ended must not open another that has no end.
    reasons = (
        publish_blocker(
            mode=mode,
            approved=is_approved(ledger, present),
            is_embargoed=record.get("isEmbargoed"),
            embargo_end_date=_moment(record.get("embargoEndDate")),
            publish_embargoed=publish_embargoed,
            now=now,
        )
        for record in records
    )
    return next((reason for reason in reasons if reason is not None), None)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC) if text else None
