"""Transfers by Globus: frames brought here, and input packages sent to the science side; extra ``globus``.

A transfer is noted with the id of its submission before it is submitted, so that whoever goes on after a
death finds the same task instead of starting another.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.base.files import write_json
from dagster_l2.batch import FailureClass
from dagster_l2.inputs.frames import Collection, Frame
from dagster_l2.inputs.objects import FrameNotFetched, keep, part_of

LANDING_FOLDER = "globus"
_FIRST_LOOK_S, _MOST_S = 1.0, 60.0


class TransferFailed(L2Error):
    """Globus did not take or did not finish a transfer."""

    def __init__(self, message: str, *, is_passing: bool = False) -> None:
        super().__init__(message)
        self.transient = is_passing


@dataclass(frozen=True, slots=True)
class Item:
    """One file or, ending in a slash, one folder to be brought."""

    source: str
    destination: str


class Transfers:
    """Globus' transfer service.

    Parameters
    ----------
    token
        Of access to the transfers; never shown.
    url
        Of the service; None: Globus' own.
    """

    def __init__(self, token: str, *, url: str | None = None) -> None:
        try:
            import globus_sdk
        except ImportError:
            raise WrongUse("Globus needs globus-sdk: install dagster_l2[globus].") from None
        self._errors = (globus_sdk.GlobusAPIError, globus_sdk.NetworkError)
        self._sdk: Any = globus_sdk
        self._client = globus_sdk.TransferClient(
            authorizer=globus_sdk.AccessTokenAuthorizer(token), base_url=url
        )

    def start(
        self, note: Path, items: Sequence[Item], *, source: Collection, destination: Collection, label: str
    ) -> str:
        """Submit a transfer once, and give the id of its task.

        Parameters
        ----------
        note
            The file that remembers it; one that is there is gone on with.

        Raises
        ------
        TransferFailed
            When Globus does not take it.
        """
        noted = read_note(note)
        if "task_id" in noted:
            return str(noted["task_id"])
        if "submission_id" not in noted:
            noted = {"submission_id": str(uuid.uuid4()), "items": len(items)}
            noted |= {"source": source.uuid, "destination": destination.uuid}
            write_json(note, noted)
        data = self._sdk.TransferData(
            source.uuid,
            destination.uuid,
            label=label,
            submission_id=noted["submission_id"],
            sync_level="checksum",
            verify_checksum=True,
            notify_on_succeeded=False,
            notify_on_failed=False,
        )
        for item in items:
            data.add_item(item.source, item.destination, recursive=item.source.endswith("/"))
        # One that was submitted already is answered with the task that it has become.
        task_id = str(self._ask(lambda: self._client.submit_transfer(data))["task_id"])
        write_json(note, {**noted, "task_id": task_id})
        return task_id

    def look(self, task_id: str) -> dict[str, Any]:
        """How a task stands: ``status`` (ACTIVE, INACTIVE, SUCCEEDED, FAILED), ``why``, files and bytes."""
        task = self._ask(lambda: self._client.get_task(task_id))
        return {
            "task_id": task_id,
            "status": str(task["status"]),
            "why": task.get("nice_status_short_description") or task.get("nice_status"),
            "files": task.get("files_transferred"),
            "bytes": task.get("bytes_transferred"),
        }

    def wait(self, task_id: str, *, pause: Callable[[float], None] = time.sleep) -> None:
        """Wait for a task to succeed.

        Raises
        ------
        TransferFailed
            When it fails, or waits for somebody to log in.
        """
        wait_s = _FIRST_LOOK_S
        while (found := self.look(task_id))["status"] == "ACTIVE":
            pause(wait_s)
            wait_s = min(_MOST_S, 1.5 * wait_s)
        if found["status"] != "SUCCEEDED":
            why = found["why"] or "no reason given"
            raise TransferFailed(f"Globus task {task_id} is {found['status']} ({why}); look at it there.")

    def _ask(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self._errors as error:
            status = getattr(error, "http_status", None)
            said = " ".join(str(getattr(error, "message", error)).split())[:200]
            is_passing = status is None or status in (408, 429) or status >= 500
            raise TransferFailed(
                f"Globus refuses the transfer ({said}); check L2_GLOBUS_TOKEN and the collections.",
                is_passing=is_passing,
            ) from None


def read_note(note: Path) -> dict[str, Any]:
    """What is remembered of a transfer; empty when there is none."""
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        return dict(content)
    except (OSError, ValueError, TypeError):
        return {}


class GlobusObjects:
    """Frames that Globus brings into a folder of this machine, many in one transfer.

    Parameters
    ----------
    source
        Where they lie, above the buckets.
    here
        What Globus calls the folder ``root`` of this machine.
    """

    most_at_once = 2000

    def __init__(self, transfers: Transfers, source: Collection, here: Collection, root: Path) -> None:
        self._transfers, self._source, self._here = transfers, source, here
        self._landing = root / LANDING_FOLDER

    def close(self) -> None:
        """Nothing is open."""

    def gather(self, wanted: Sequence[tuple[Frame, Path]]) -> None:
        """Let Globus bring what has not landed yet, and wait for it."""
        names = sorted(f"{frame.bucket}/{frame.object_key}" for frame, _ in wanted)
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        note = self._landing / "tasks" / f"{digest}.json"
        if not read_note(note) and all(self._has_landed(frame) for frame, _ in wanted):
            return
        items = [
            Item(f"{self._source.path}/{name}", f"{self._here.path}/{LANDING_FOLDER}/{name}")
            for name in names
        ]
        try:
            task_id = self._transfers.start(
                note, items, source=self._source, destination=self._here, label="level-1 frames"
            )
            self._transfers.wait(task_id)
        except TransferFailed as error:
            if not error.transient:
                note.unlink(missing_ok=True)  # another try is another transfer
            kind = FailureClass.PASSING if error.transient else FailureClass.PERMANENT
            raise FrameNotFetched(str(error), kind) from None
        note.unlink(missing_ok=True)

    def fetch(self, frame: Frame, target: Path) -> None:
        """Take a frame that has landed; see `Objects`."""
        landed = self._landing / frame.bucket / frame.object_key
        if not landed.is_file():
            raise FrameNotFetched(
                f"Frame {frame.object_key} is not in {self._landing}; is that L2_LOCAL_COLLECTION?",
                FailureClass.PERMANENT,
            )
        part = part_of(target)
        landed.replace(part)
        keep(frame, part, target)

    def _has_landed(self, frame: Frame) -> bool:
        landed = self._landing / frame.bucket / frame.object_key
        return landed.is_file() and frame.size in (None, landed.stat().st_size)
