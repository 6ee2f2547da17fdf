"""The object space of the local store: level-1 frames made when they are first asked for, and kept.

What a frame says is planned in ``frame_plan``; the making, in a process of its own, is in ``frame_maker``.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dagster_l2.base.files import AlreadyRunning, only_one, safe_name
from dagster_l2.store.errors import StoreError
from dagster_l2.store.server.frame_plan import FramePlan, frame_plan, has_frames
from dagster_l2.store.server.records import Row
from dagster_l2.store.server.search import BadRequest
from dagster_l2.store.server.standins import stable_int

_WAIT_S = 600.0
_BY = {
    "datasetId": "datasetId",
    "observingProgramExecutionIds": "observingProgramExecutionId",
    "instrumentProgramExecutionId": "instrumentProgramExecutionId",
}


class FramesNotMade(StoreError):
    """The frames of a dataset could not be made."""

    transient = True


def can_make_frames() -> bool:
    """Whether the simulator is installed; without it the local store lists no frames."""
    return importlib.util.find_spec("dkist_data_simulator") is not None


class FrameSpace:
    """The frames of some datasets. May be used in several threads, and several servers may share a folder.

    Parameters
    ----------
    datasets
        Records; those that frames can't be made for have none.
    folder
        Where the frames are kept; made when missing.
    """

    def __init__(self, datasets: Iterable[Row], folder: Path) -> None:
        self._folder = folder
        self._records = {str(row["datasetId"]): row for row in datasets if has_frames(row)}
        self._lock = threading.Lock()
        self._listed: dict[str, list[Row]] = {}

    def listing(self, asked: Mapping[str, Any]) -> list[Row]:
        """The frame records of the datasets that a request is about.

        Raises
        ------
        BadRequest
            When it names neither datasets nor programs: all frames there could be are not made at once.
        FramesNotMade
            When they can't be made.
        """
        wanted = {name: asked[name] for name in _BY if asked.get(name)}
        key = asked.get("objectKey")
        if not wanted and not key:
            raise BadRequest(
                "The local store makes its frames when they are asked for: name datasetId,"
                " observingProgramExecutionIds, instrumentProgramExecutionId or objectKey."
            )
        chosen = [
            dataset_id
            for dataset_id, record in self._records.items()
            if all(
                record[_BY[name]] in (value if isinstance(value, list) else [value])
                for name, value in wanted.items()
            )
            and (not key or key.startswith(f"{record['primaryProposalId']}/{dataset_id}/"))
        ]
        self._make(chosen)
        return [row for dataset_id in chosen for row in self._listed[dataset_id]]

    def file(self, bucket: str, key: str) -> Path | None:
        """The file of an object, made if need be; None when there is no such object.

        Raises
        ------
        FramesNotMade
            When it can't be made.
        """
        dataset_id = key.split("/")[1] if key.count("/") == 2 else ""
        record = self._records.get(dataset_id)
        if record is None or record["bucket"] != bucket:
            return None
        self._make([dataset_id])
        names = {row["objectKey"] for row in self._listed[dataset_id] if row["frameStatus"] == "AVAILABLE"}
        return self._frames_of(dataset_id) / Path(key).name if key in names else None

    def _make(self, dataset_ids: list[str]) -> None:
        with self._lock:
            missing = [dataset_id for dataset_id in dataset_ids if dataset_id not in self._listed]
            if not missing:
                return
            plans = {dataset_id: frame_plan(self._records[dataset_id]) for dataset_id in missing}
            try:
                with only_one(self._folder / "make.lock", "The making of frames", wait_s=_WAIT_S):
                    todo = [plan for plan in plans.values() if self._sizes(plan) is None]
                    if todo:
                        self._run(todo)
            except AlreadyRunning as error:
                raise FramesNotMade(str(error)) from error
            for dataset_id, plan in plans.items():
                sizes = self._sizes(plan)
                if sizes is None:
                    raise FramesNotMade(f"The frames of dataset {dataset_id!r} are not there; ask again.")
                self._listed[dataset_id] = [_row(plan, number, sizes) for number in range(plan.count)]

    def _sizes(self, plan: FramePlan) -> dict[int, int] | None:
        """Size by number of the frames that are there; None when they are not, or of another record."""
        try:
            content = json.loads(self._listing_of(plan.dataset_id).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if content.get("plan") != plan.fingerprint:
            return None
        return {frame["number"]: frame["size"] for frame in content["frames"]}

    def _run(self, plans: list[FramePlan]) -> None:
        order = {
            "datasets": [
                {
                    "record": plan.record,
                    "plan": plan.fingerprint,
                    "folder": str(self._frames_of(plan.dataset_id)),
                    "listing": str(self._listing_of(plan.dataset_id)),
                }
                for plan in plans
            ]
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "order.json"
            file.write_text(json.dumps(order), encoding="utf-8")
            done = subprocess.run(
                [sys.executable, "-m", "dagster_l2.store.server.frame_maker", str(file)],
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise FramesNotMade(f"The simulator could not make the frames ({last[:200]}).")

    def _frames_of(self, dataset_id: str) -> Path:
        record = self._records[dataset_id]
        parts = (record["bucket"], record["primaryProposalId"], dataset_id)
        return self._folder.joinpath(*(safe_name(str(part)) for part in parts))

    def _listing_of(self, dataset_id: str) -> Path:
        return self._folder / "listings" / f"{safe_name(dataset_id)}.json"


def _row(plan: FramePlan, number: int, sizes: Mapping[int, int]) -> Row:
    """The inventory record of one frame."""
    record, key = plan.record, plan.object_key(number)
    is_kept = plan.is_kept(number)
    step = number % plan.steps
    return {
        "inventoryId": f"{plan.dataset_id}-{number:05d}",
        "bucket": record["bucket"],
        "objectKey": key,
        "observationDate": plan.begin(step).isoformat(timespec="microseconds"),
        "createDate": record["createDate"],
        "updateDate": None,
        "lostDate": None if is_kept else record["updateDate"],
        "headerHdu": 1,
        "frameStatus": plan.status(number),
        "datasetId": plan.dataset_id,
        "frameId": str(stable_int(key)),
        "frameSize": sizes.get(number),
        "processingType": "L1",
        "recipeRunId": record["recipeRunId"],
        "proposalId": record["primaryProposalId"],
        "experimentId": record["primaryExperimentId"],
        "observingProgramExecutionId": plan.op_id,
        "instrument": "VISP",
        "instrumentProgramExecutionId": record["instrumentProgramExecutionId"],
        "datasetSequenceNumber": number + 1,
        "wavelength": sum(plan.wavelengths_nm) / 2,
        "vispPolarimeterMode": "observe_polarimetric" if len(plan.stokes) > 1 else "observe_intensity",
        "frameExposureTime": plan.exposure_ms,
    }
