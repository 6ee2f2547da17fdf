"""One step of the pipeline for all observing programs that wait for it, composed from the rooms.

Level-triggered: each compares what the ledger has with what should be. One OP that fails goes to Error and
stops no other. No Dagster and no printing here; the rules are in the rooms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dagster_l2.base.errors import error_class, one_sentence_of
from dagster_l2.base.files import AlreadyRunning
from dagster_l2.inputs import (
    Collection,
    build_package,
    package_details,
    package_folder,
    write_package,
    write_transfer_lists,
)
from dagster_l2.ledger import (
    Conflict,
    IllegalTransition,
    Ledger,
    LedgerUnavailable,
    Present,
    ScienceEvent,
    State,
)
from dagster_l2.pipeline.holds import is_approved, note_waiting
from dagster_l2.pipeline.level2 import write_files
from dagster_l2.pipeline.receiving import Places, StillComing, receive_products
from dagster_l2.products import ProductsRefused
from dagster_l2.publishing import (
    Bus,
    BusUnavailable,
    PublishArea,
    Publisher,
    PublishFailed,
    ReleaseFile,
    publish_blocker,
)
from dagster_l2.store import StoreClient, StoreError


@dataclass
class StepReport:
    """What a step did: ids that are done, and (op_id, reason) of those that were refused or failed.

    ``seen`` are the inversions that were published or are held back.
    """

    done: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)


def prepare_inputs(
    ledger: Ledger,
    data: Path,
    datasets: Iterable[Mapping[str, Any]],
    *,
    actor: str,
    run_id: str | None,
    store_collection: str | None = None,
    science_collection: str | None = None,
) -> StepReport:
    """Write the input package of every Invertible OP and record it as Preprocessed.

    Parameters
    ----------
    datasets
        Rows of ``int_input_datasets``, for all OPs.
    store_collection, science_collection
        Where Globus takes the frames from and brings them to, ``<uuid>:/path``; for the transfer lists.
    """
    report = StepReport()
    source = Collection.parse(store_collection) if store_collection else None
    destination = Collection.parse(science_collection) if science_collection else None
    by_op: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in datasets:
        by_op[row["op_id"]].append(row)
    waiting = [present for present in ledger.present_all().values() if present.state is State.INVERTIBLE]
    for present in sorted(waiting, key=lambda present: present.op_id):
        with _one_fails_alone(ledger, report, present, "preprocess", actor=actor, run_id=run_id):
            ends = (source, destination)
            _prepare(ledger, data, present, by_op[present.op_id], ends, actor=actor, run_id=run_id)
            report.done.append(present.op_id)
    return report


def _prepare(
    ledger: Ledger,
    data: Path,
    present: Present,
    datasets: list[Mapping[str, Any]],
    ends: tuple[Collection | None, Collection | None],
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
    folder = package_folder(data, present.op_id)
    write_package(folder, package)
    write_transfer_lists(folder, package, source=ends[0], destination=ends[1])
    ledger.record_preprocessed(
        present.op_id,
        inputs_hash=str(present.inputs_hash),
        details=package_details(package),
        run_id=run_id,
        actor=actor,
    )


def settle_events(
    ledger: Ledger, data: Path, *, actor: str, run_id: str | None, places: Places | None = None
) -> StepReport:
    """Bring the products of every science-ready event without an outcome home, and verify them.

    Parameters
    ----------
    places
        Where they may come from.
    """
    report = StepReport()

    def check(event: ScienceEvent) -> dict[str, Any]:
        return receive_products(ledger, data, event, places or Places(), actor=actor, run_id=run_id)

    for event in ledger.pending_events():
        present = ledger.present(event.op_id)
        with _one_fails_alone(ledger, report, present, "verify", actor=actor, run_id=run_id):
            try:
                outcome = ledger.settle(event, check, run_id=run_id, actor=actor, refusals=(ProductsRefused,))
            except AlreadyRunning:
                continue  # another run takes these products home and settles the event
            except StillComing as error:
                report.refused.append((event.op_id, str(error)))
                continue
            if outcome.is_accepted:
                report.done.append(event.inversion_id)
            else:
                report.refused.append((event.op_id, outcome.reason or ""))
    return report


def publish_inverted(
    ledger: Ledger,
    open_store: Callable[[], AbstractContextManager[StoreClient]],
    data: Path,
    *,
    area: PublishArea,
    bus: Bus,
    mode: Literal["auto", "approve"],
    default_bucket: str | None,
    publish_embargoed: bool,
    now: datetime,
    actor: str,
    run_id: str | None,
) -> StepReport:
    """Publish every Inverted OP that nothing holds back; what holds one back is noted on it once.

    Parameters
    ----------
    data
        The data folder, with the products at home.
    area, bus
        Where the files go, and who carries the catalog messages.

    Notes
    -----
    The embargo is asked of the store at this moment: what the last scan saw may be hours old.
    """
    report = StepReport()
    waiting = [present for present in ledger.present_all().values() if present.state is State.INVERTED]
    if not waiting:
        return report
    with open_store() as store:
        publisher = Publisher(store, ledger, default_bucket, area=area, bus=bus)

        def publish(present: Present) -> str | None:
            """Publish one, or say why it waits."""
            records = _inverted_records(store, present)
            reason = _held_back(ledger, present, records, mode, publish_embargoed, now)
            if reason is not None:
                note_waiting(ledger, present, reason, actor=actor)
                return reason
            publisher.publish(
                present.op_id,
                proposal_id=records[0]["primaryProposalId"],
                actor=actor,
                run_id=run_id,
                files=_release_files(ledger, data, present, records, actor=actor, run_id=run_id),
            )
            return None

        for present in sorted(waiting, key=lambda present: present.since):
            with _one_fails_alone(ledger, report, present, "publish", actor=actor, run_id=run_id):
                if not _attempted(report, present, publish):
                    break
    return report


def _attempted(report: StepReport, present: Present, publish: Callable[[Present], str | None]) -> bool:
    """Publish one OP and report it; whether the next one is worth an attempt.

    What is the store's or the bus's failure leaves the OP Inverted, and the next run looks again.
    """
    try:
        reason = publish(present)
    except AlreadyRunning:
        return True  # another run publishes it
    except PublishFailed as error:
        report.failed.append((present.op_id, str(error)))  # and in Error already
        return True
    except (BusUnavailable, StoreError) as error:
        report.failed.append((present.op_id, str(error)))
        return not error.transient  # asking for each OP would take as long as all its tries
    inversion_id = str(present.inversion_id)
    report.seen.append(inversion_id)
    if reason is None:
        report.done.append(inversion_id)
    else:
        report.refused.append((present.op_id, reason))
    return True


@contextmanager
def _one_fails_alone(
    ledger: Ledger, report: StepReport, seen: Present, step: str, *, actor: str, run_id: str | None
) -> Iterator[None]:
    """Bring an OP to Error when its part of a step fails, and let the step go on.

    One that another moved meanwhile is left where it is. A ledger that can't be used ends the step.
    """
    try:
        yield
    except LedgerUnavailable:
        raise
    except (Conflict, IllegalTransition) as error:
        report.refused.append((seen.op_id, str(error)))
    except Exception as error:  # noqa: BLE001 - what nobody foresaw in one OP must stop no other either
        message = one_sentence_of(error)
        try:
            ledger.fail(
                seen.op_id,
                step=step,
                error_class=error_class(error),
                message=message,
                actor=actor,
                run_id=run_id,
                seen=seen.seq,
            )
        except (Conflict, IllegalTransition) as moved:
            report.refused.append((seen.op_id, f"{message} ({moved})"))
        else:
            report.failed.append((seen.op_id, message))


def _release_files(
    ledger: Ledger, data: Path, present: Present, records: Sequence[Mapping[str, Any]], **by: Any
) -> list[ReleaseFile]:
    """The level-2 files of an inversion, which go out; written when they are not there yet."""
    files = write_files(ledger, data, present, records, **by)
    return [
        ReleaseFile(
            files.folder / file["name"],
            file["name"],
            file["size"],
            file["sha256"],
            is_asdf=file["name"] == files.manifest["asdf"],
        )
        for file in files.manifest["files"]
    ]


def _inverted_records(store: StoreClient, present: Present) -> list[dict[str, Any]]:
    dataset_ids = list(present.details["dataset_ids"])
    # An empty list would mean no filter, and so every record of the store.
    return list(store.datasets({"datasetIds": dataset_ids})) if dataset_ids else []


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
            embargo_end_date=record.get("embargoEndDate"),
            publish_embargoed=publish_embargoed,
            now=now,
        )
        for record in records
    )
    return next((reason for reason in reasons if reason is not None), None)
