"""Where the files of a job lie, its five manifests, and the batch file that is all a worker needs.

Written by the coordinator and the tasks; the state itself is in the database, these are for a reader and
for recovery. The result manifest is the lake's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

import sqlalchemy as sa

from dagster_l2.base.files import remove_leftovers, write_json
from dagster_l2.batch.jobs.definition import JobDefinition, parse_definition
from dagster_l2.batch.jobs.model import Batch, JobError, window_from_json, window_to_json
from dagster_l2.batch.windows import Window


@dataclass(frozen=True, slots=True)
class JobManifest:
    """What a job is; ``status`` is null until its workers are started.

    ``cluster_array_id`` holds the ids of its Slurm arrays, separated by commas: more than one after a retry.
    """

    job_id: str
    job_type: str
    handler: str
    git_commit: str | None
    config_file: str | None
    input_file: str | None
    batch_size: int
    task_count: int
    cluster_array_id: str | None
    submitted_at: str
    submitted_by: str | None
    phases: list[str]
    status: str | None


@dataclass(frozen=True, slots=True)
class TaskManifest:
    """What a task did: written when it starts and again when it ends."""

    job_id: str
    task_id: str
    batch_id: str | None
    role: str
    phase: str
    group: str
    input: str | None
    output_file: str | None
    status: str
    start_time: str
    end_time: str | None
    metrics: Mapping[str, Any]
    error: str | None


@dataclass(frozen=True, slots=True)
class RetryManifest:
    """Which failed tasks are tried again, and why they had failed."""

    retry_id: str
    parent_job_id: str
    failed_tasks: list[str]
    error_types: Mapping[str, int]
    retries_launched: list[str]
    submitted_at: str


@dataclass(frozen=True, slots=True)
class AggregationManifest:
    """What became one file; ``output_file`` is as `JobFolders.named` has it, null where there was no row."""

    job_id: str
    phase: str
    input_files: list[str]
    output_file: str | None
    total_rows: int
    duplicates_removed: int
    output_hash: str | None
    row_counts_by_batch: Mapping[str, int]
    written_at: str


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What every task of a job must know. It holds no secret: the state database's password is not in it.

    ``inputs`` joins the source's own query in the identity of a window: format, schema version, and the
    sweep for a source whose records can still change.
    """

    job_id: str
    definition: JobDefinition
    source_params: Mapping[str, Any]
    inputs: Mapping[str, Any]
    run_id: str | None
    submitted_at: str
    submitted_by: str | None
    git_commit: str | None
    config_file: str | None
    jobs_root: str
    scratch_root: str
    output_folder: str
    database_url: str
    database_schema: str | None

    def to_json(self) -> dict[str, Any]:
        """As it lies in a batch file."""
        content = {name: getattr(self, name) for name in self.__slots__}
        return {**content, "definition": self.definition.model_dump(mode="json")}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], place: str) -> JobOrder:
        """The reverse of `to_json`."""
        return cls(**{**content, "definition": parse_definition(content["definition"], place)})

    def beside(self, jobs_root: Path) -> Self:
        """The same where the folder of all jobs lies now; what lay beside it was moved with it."""
        was, now = Path(self.jobs_root).parent, jobs_root.parent
        if was == now:
            return self

        def moved(path: str) -> str:
            return str(now / Path(path).relative_to(was)) if Path(path).is_relative_to(was) else path

        address = sa.make_url(self.database_url)
        if address.get_backend_name() == "sqlite" and address.database:
            address = address.set(database=moved(address.database))
        return replace(
            self,
            jobs_root=str(jobs_root),
            scratch_root=moved(self.scratch_root),
            output_folder=moved(self.output_folder),
            database_url=address.render_as_string(hide_password=False),
        )


class JobFolders:
    """The paths of one job.

    Parameters
    ----------
    jobs_root
        The folder of all jobs.
    scratch_root
        Where tasks keep what only they need; node-local on a cluster.
    job_id
        The job.
    """

    def __init__(self, jobs_root: Path, scratch_root: Path, job_id: str) -> None:
        self.jobs_root, self.job_id = jobs_root, job_id
        self.root = jobs_root / job_id
        self.scratch = scratch_root / f"job_{job_id}"

    @classmethod
    def of(cls, order: JobOrder) -> JobFolders:
        """The paths of the job of an order."""
        return cls(Path(order.jobs_root), Path(order.scratch_root), order.job_id)

    @property
    def manifest(self) -> Path:
        """The job manifest."""
        return self.root / "manifest.json"

    @property
    def batches(self) -> Path:
        """The folder of the batch files."""
        return self.root / "batches"

    @property
    def aggregation(self) -> Path:
        """The aggregation manifest."""
        return self.root / "aggregation" / "manifest.json"

    @property
    def summary(self) -> Path:
        """Counts, rates, and failures by class, for people."""
        return self.root / "summary.json"

    def batch(self, batch_id: str) -> Path:
        """The read-only copy of a batch."""
        return self.batches / f"{batch_id}.json"

    def task_manifest(self, task_id: str) -> Path:
        """The manifest of a task."""
        return self.root / "tasks" / task_id / "manifest.json"

    def results(self, task_id: str) -> Path:
        """The rows of a task."""
        return self.root / "tasks" / task_id / "results.parquet"

    def rejected(self, task_id: str) -> Path:
        """What a task received and could not read, with the reasons."""
        return self.root / "tasks" / task_id / "rejected.parquet"

    def notes(self, task_id: str) -> Path:
        """What the source noted of the chunks of a task."""
        return self.root / "tasks" / task_id / "notes.json"

    def retry_manifest(self, retry_id: str) -> Path:
        """The manifest of a retry."""
        return self.root / "retries" / retry_id / "manifest.json"

    def task_scratch(self, task_id: str) -> Path:
        """A task's own working files."""
        return self.scratch / f"task_{task_id}"

    def relative(self, path: Path) -> str:
        """A path below the folder of all jobs, as the log of attempts holds it."""
        return path.relative_to(self.jobs_root).as_posix()

    def named(self, path: Path) -> str:
        """A path as a manifest names it: what lies beside the folder of all jobs relative to that folder.

        So it is found again where all was moved or restored to another place.
        """
        home = self.jobs_root.parent
        return str(PurePosixPath("..", path.relative_to(home))) if path.is_relative_to(home) else str(path)

    def found(self, name: str) -> Path:
        """The reverse of `named`; manifests of before named every path from the root."""
        return Path(os.path.normpath(self.jobs_root / name))

    def write_batches(self, order: JobOrder, batches: Sequence[Batch]) -> None:
        """Write the read-only copies of batches, each once."""
        job = order.to_json()
        fresh = [batch for batch in batches if not self.batch(batch.batch_id).exists()]
        for number, batch in enumerate(fresh, start=1):
            path = self.batch(batch.batch_id)
            windows = [window_to_json(window) for window in batch.windows]
            content = {"batch_id": batch.batch_id, "windows": windows, "job": job}
            write_json(path, content, is_last=number == len(fresh))
            path.chmod(0o444)

    def remove_leftovers(self) -> None:
        """Remove what was half written by processes that were killed."""
        for folder, _folders, _files in os.walk(self.root):
            remove_leftovers(Path(folder))

    def arrays(self) -> str | None:
        """The ids of the Slurm arrays that the job manifest names."""
        try:
            found = json.loads(self.manifest.read_text(encoding="utf-8"))["cluster_array_id"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, str) else None

    def note_array(self, array_id: str) -> None:
        """Add a Slurm array to the job manifest."""
        content = json.loads(self.manifest.read_text(encoding="utf-8"))
        earlier = self.arrays()
        write_json(
            self.manifest,
            {**content, "cluster_array_id": f"{earlier},{array_id}" if earlier else array_id},
        )

    def write(self, path: Path, manifest: Any) -> None:
        """Write a manifest."""
        write_json(path, asdict(manifest))


def read_batch(path: Path) -> tuple[JobOrder, Batch]:
    """What a batch file says.

    Raises
    ------
    JobError
        When the file is not there or is no batch file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        windows = tuple(window_from_json(window) for window in content["windows"])
        order = JobOrder.from_json(content["job"], path.name).beside(path.absolute().parents[2])
        return order, Batch(content["batch_id"], windows)
    except OSError as error:
        raise JobError(
            f"The batch file {path} can't be read ({error.strerror}); is its name right?"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise JobError(f"{path} is no batch file of this version; start the job anew.") from None


def read_windows(path: Path) -> tuple[Window, ...]:
    """The windows of a batch file alone, for one who reads thousands.

    Raises
    ------
    JobError
        When the file is not there or is no batch file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return tuple(window_from_json(window) for window in content["windows"])
    except (OSError, ValueError, KeyError, TypeError):
        return read_batch(path)[1].windows  # which says what is wrong with it


def read_order(jobs_root: Path, job_id: str) -> JobOrder:
    """The order of a job that was started earlier.

    Raises
    ------
    JobError
        When the folder of the job is not there.
    """
    for path in sorted((jobs_root / job_id / "batches").glob("*.json")):
        return read_batch(path)[0]
    raise JobError(
        f"There are no batch files of job {job_id} in {jobs_root}; is the id right, or was it cleaned up?"
    )


def read_aggregation(path: Path) -> AggregationManifest | None:
    """An aggregation manifest; None when there is none or it can't be read."""
    try:
        return AggregationManifest(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
