"""Publishing one inversion: copy, tell the catalog, create, read back, compare, and only then Published.

Each step is recorded when it is done, so a run after a crash goes on where it ended. Whether it may be
published now is in ``rules``, and asked by the caller.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster_l2.base.errors import error_class
from dagster_l2.base.files import step
from dagster_l2.ledger import Conflict, IllegalTransition, Ledger, Present, State
from dagster_l2.publishing.area import PublishArea
from dagster_l2.publishing.bus import Bus
from dagster_l2.publishing.release import Release, ReleaseFile, catalog_messages
from dagster_l2.publishing.rules import (
    NotInverted,
    NotTaken,
    PublishError,
    PublishFailed,
    RecordDiffers,
    RecordIncomplete,
    choose_bucket,
    differences,
)
from dagster_l2.store import (
    DuplicateInversion,
    Record,
    StoreClient,
    StoreError,
    StoreReadOnly,
    StoreRefused,
    StoreUnreachable,
)

STEP = "publish"


class Outcome(enum.StrEnum):
    """How an attempt to publish ended."""

    PUBLISHED = "published"
    ALREADY = "already published"


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What one attempt did.

    Parameters
    ----------
    is_created
        Whether this attempt created the store's record; false when an earlier or another one had.
    record
        The store's record as read back; None when the OP was Published before this attempt.
    """

    op_id: str
    inversion_id: str
    outcome: Outcome
    is_created: bool = False
    record: Record | None = None


class PublishStep(enum.StrEnum):
    """The recorded steps of publishing, in their order; Published itself is a transition."""

    COPIED = "copied"
    ANNOUNCED = "announced"
    CREATED = "created"
    CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class _By:
    """Who publishes, for the records."""

    actor: str
    run_id: str | None


class Publisher:
    """Publish inverted observing programs to one store.

    Parameters
    ----------
    default_bucket
        Where to publish when the inputs do not share one bucket.
    area
        Where the files go.
    bus
        Who carries the catalog messages.
    """

    def __init__(
        self, store: StoreClient, ledger: Ledger, default_bucket: str | None, *, area: PublishArea, bus: Bus
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._default_bucket = default_bucket
        self._area = area
        self._bus = bus

    def publish(
        self,
        op_id: str,
        *,
        proposal_id: str,
        actor: str,
        run_id: str | None,
        files: Sequence[ReleaseFile] = (),
    ) -> PublishResult:
        """Bring the inversion of an Inverted OP out, exactly once, and record Published.

        The files are copied to the publish area, the catalog is told of them, the store's record is created
        unless it is there, read back and compared. Each step is recorded when it is done; a run after a crash
        goes on behind the last one recorded. A record that is there already and equal is taken as ours: the
        create of a run that died, or of another publisher at the same moment.

        Raises
        ------
        NotInverted
            The OP is neither Inverted nor Published.
        PublishFailed
            The OP is in Error. Permanent: it cannot be published as it is (a different record under the id,
            no bucket, a file that is not what was verified). Transient: the store is up and answers, but did
            not take this record, or does not list it; a retry looks first.
        StoreError
            The store as a whole is down, answers nonsense or refuses the token, also when an answer was lost
            after the create. The OP stays Inverted and the next attempt takes up from there.
        BusUnavailable
            The same of the message bus.
        LedgerError
            The OP is unknown, or was moved elsewhere meanwhile.
        OSError
            The disk of the publish area gives up.
        """
        present = self._ledger.present(op_id)
        if present.state is State.INVERTED and present.inversion_id is not None:
            with self._area.only_publisher(present.inversion_id):
                return self._publish(op_id, proposal_id, files, _By(actor, run_id))
        return self._publish(op_id, proposal_id, files, _By(actor, run_id))

    def _publish(self, op_id: str, proposal_id: str, files: Sequence[ReleaseFile], by: _By) -> PublishResult:
        present = self._ledger.present(op_id)
        inversion_id = present.inversion_id
        if present.state not in (State.INVERTED, State.PUBLISHED) or inversion_id is None:
            raise NotInverted(
                f"OP {op_id!r} is {present.state}; only an Inverted one can be published,"
                " hand its products over first."
            )
        if present.state is State.PUBLISHED:
            return PublishResult(op_id, inversion_id, Outcome.ALREADY)

        # Asked before anything else is judged: a store that is down or read only must bring no OP to Error.
        found = self._look(inversion_id)
        is_created = False
        release = Release(inversion_id, proposal_id, tuple(files))
        try:
            wanted = self._wanted(present, release)
            _check_same(op_id, wanted, found)
            self._bring_out(present, wanted["bucket"], release, by)
            if not found:
                is_created, found = self._create(wanted)
                _check_same(op_id, wanted, found)
        except PublishError as error:
            self._record_failure(present, error, by)
            raise PublishFailed(str(error)) from error
        self._done(present, PublishStep.CREATED, {"record": wanted, "is_created": is_created}, by)
        self._done(present, PublishStep.CONFIRMED, {"record": found[0]}, by)
        return self._published(op_id, wanted, found[0], is_created=is_created, by=by)

    def _bring_out(self, present: Present, bucket: str, release: Release, by: _By) -> None:
        """Copy the files and tell the catalog of them, as far as that is not recorded."""
        done = self._ledger.steps_of(release.inversion_id)
        self._area.put(bucket, release, is_told=PublishStep.ANNOUNCED in done)
        files = [
            {"object": release.object_name(file), "size": file.size, "sha256": file.sha256}
            for file in release.files
        ]
        self._done(present, PublishStep.COPIED, {"bucket": bucket, "files": files}, by)
        if PublishStep.ANNOUNCED not in done:
            messages = catalog_messages(bucket, release)
            step("send the catalog messages")
            self._bus.send(messages)
            details = {"conversations": [message.conversation_id for message in messages]}
            self._done(present, PublishStep.ANNOUNCED, details, by)

    def _done(self, present: Present, name: PublishStep, details: Mapping[str, Any], by: _By) -> None:
        step(f"record {name}")
        inversion_id = str(present.inversion_id)
        self._ledger.record_step(
            present.op_id,
            inversion_id=inversion_id,
            subject=inversion_id,
            step=name,
            details=details,
            actor=by.actor,
            run_id=by.run_id,
        )

    def _look(self, inversion_id: str) -> list[Record]:
        # Filtered here as well: a server that ignores the filter must not pass off another inversion as ours.
        records = self._store.inversions(inversion_id=inversion_id)
        return [record for record in records if record.get("inversionId") == inversion_id]

    def _wanted(self, present: Present, release: Release) -> dict[str, Any]:
        """The store's record of what was inverted, from the details of Inverted."""
        inversion_id, proposal_id = release.inversion_id, release.proposal_id
        details: Mapping[str, Any] = present.details
        program, datasets = details.get("instrument_program_id"), details.get("dataset_ids")
        if not program or not datasets or not proposal_id:
            raise RecordIncomplete(
                f"The history of OP {present.op_id!r} does not name the proposal, instrument program and"
                f" datasets of {inversion_id}; withdraw it and hand it over again."
            )
        return {
            "inversionId": inversion_id,
            "primaryProposalId": proposal_id,
            "instrumentProgramExecutionId": program,
            "bucket": choose_bucket(details.get("buckets") or (), self._default_bucket),
            "asdfObjectKey": release.asdf_object_key,
            "datasetIds": list(datasets),
            "spectralLines": list(details.get("spectral_lines") or ()),
        }

    def _create(self, wanted: Mapping[str, Any]) -> tuple[bool, list[Record]]:
        """Create the record and read it back; whether it was created here, and what the store lists."""
        reason = "it took the record but does not list it yet"
        is_created = False
        step("ask the store to create")
        try:
            self._store.create_inversion({name: value for name, value in wanted.items() if value is not None})
            is_created = True
        except DuplicateInversion:
            # Another publisher came between the look and the create; the read-back judges what it wrote.
            pass
        except (StoreUnreachable, StoreRefused, StoreReadOnly):
            raise
        except StoreError as error:
            reason = str(error).rstrip(".")
        # A store that is down as a whole fails here too, and then no OP is to blame.
        found = self._look(wanted["inversionId"])
        if not found:
            raise NotTaken(
                f"The store is up but does not have inversion {wanted['inversionId']} ({reason});"
                " a retry looks again before it creates anything."
            )
        return is_created, found

    def _published(
        self,
        op_id: str,
        wanted: Mapping[str, Any],
        record: Record,
        *,
        is_created: bool,
        by: _By,
    ) -> PublishResult:
        inversion_id = str(wanted["inversionId"])
        details = {
            "bucket": wanted["bucket"],
            "asdf_object_key": wanted["asdfObjectKey"],
            "dataset_ids": wanted["datasetIds"],
            "spectral_lines": wanted["spectralLines"],
            "instrument_program_id": wanted["instrumentProgramExecutionId"],
            "proposal_id": wanted["primaryProposalId"],
            "store_create_date": record.get("createDate"),
        }
        outcome = Outcome.PUBLISHED
        try:
            step("record Published")
            self._ledger.published(
                op_id, inversion_id=inversion_id, details=details, actor=by.actor, run_id=by.run_id
            )
        except (Conflict, IllegalTransition):
            if not self._is_now(op_id, inversion_id, State.PUBLISHED):
                raise
            outcome = Outcome.ALREADY
        return PublishResult(op_id, inversion_id, outcome, is_created=is_created, record=record)

    def _record_failure(self, present: Present, error: PublishError, by: _By) -> None:
        try:
            self._ledger.fail(
                present.op_id,
                step=STEP,
                error_class=error_class(error),
                message=str(error),
                actor=by.actor,
                run_id=by.run_id,
                seen=present.seq,
            )
        except (Conflict, IllegalTransition):
            if not self._is_now(present.op_id, str(present.inversion_id), State.ERROR):
                raise

    def _is_now(self, op_id: str, inversion_id: str, state: State) -> bool:
        present = self._ledger.present(op_id)
        return present.state is state and present.inversion_id == inversion_id


def _check_same(op_id: str, wanted: Mapping[str, Any], found: list[Record]) -> None:
    diff = [text for record in found for text in differences(wanted, record)]
    if diff:
        raise RecordDiffers(
            f"The store holds inversion {wanted['inversionId']} with other content ({'; '.join(diff)}); "
            f"retry and withdraw OP {op_id!r} to publish under a new inversion id."
        )
