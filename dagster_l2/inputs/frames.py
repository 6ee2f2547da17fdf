"""The level-1 frames of an OP as the store lists them, and the lists by which others can fetch them.

Values and texts only: what brings frames here is in ``staging``, where their bytes lie in ``objects``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from dagster_l2.base.errors import L2Error
from dagster_l2.base.files import safe_name, write_durably, write_json

FRAMES_FOLDER = "frames"
CUBES_FOLDER = "cubes"
TRANSFER_FOLDER = "transfer"
_AVAILABLE = "AVAILABLE"
_LEVEL_1 = "L1"
LISTING_FILE = "frames_listed.json"


class FrameListUnusable(L2Error):
    """The store lists frames that can't be meant."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One level-1 frame that the store lists.

    Parameters
    ----------
    observed_at
        When it was taken, UTC without a zone.
    size
        In bytes; None where the store does not say.
    status
        ``AVAILABLE``, ``LOST`` or ``REMOVED``.
    """

    bucket: str
    object_key: str
    dataset_id: str
    observed_at: datetime
    size: int | None
    status: str

    @property
    def is_available(self) -> bool:
        """Whether it can be fetched."""
        return self.status == _AVAILABLE

    @property
    def path(self) -> PurePosixPath:
        """Where it lies below the folder of staged frames: a folder for each dataset."""
        return PurePosixPath(safe_name(self.dataset_id), safe_name(PurePosixPath(self.object_key).name))


def read_frames(records: Iterable[Mapping[str, Any]]) -> list[Frame]:
    """The level-1 frames among frame records of the store, by time and key.

    Raises
    ------
    FrameListUnusable
        When one lacks what every frame has, or two of them would be one file.
    """
    frames = [_read(record) for record in records if record.get("processingType") in (None, _LEVEL_1)]
    frames.sort(key=lambda frame: (frame.observed_at, frame.object_key))
    paths = {frame.path for frame in frames}
    if len(paths) != len(frames):
        raise FrameListUnusable("The store lists two frames of one name in a dataset; they can't be staged.")
    return frames


def _read(record: Mapping[str, Any]) -> Frame:
    try:
        size = record.get("frameSize")
        return Frame(
            bucket=str(record["bucket"]),
            object_key=str(record["objectKey"]),
            dataset_id=str(record["datasetId"]),
            observed_at=_utc(datetime.fromisoformat(record["observationDate"])),
            size=None if size is None else int(size),
            status=str(record["frameStatus"]),
        )
    except (KeyError, TypeError, ValueError):
        name = record.get("objectKey") or record.get("inventoryId")
        raise FrameListUnusable(
            f"The store lists frame {name!r} without bucket, key, dataset or time; it can't be staged."
        ) from None


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def digest(frames: Sequence[Frame]) -> str:
    """What tells one list of frames from another."""
    text = json.dumps([[f.bucket, f.object_key, f.size, f.status] for f in frames])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_listing(folder: Path, frames: Sequence[Frame]) -> Path:
    """Keep the list of an OP's frames in its folder, for the workers that stage them."""
    path = folder / LISTING_FILE
    write_json(path, [asdict(frame) for frame in frames], indent=None)
    return path


def read_listing(path: Path) -> list[Frame]:
    """What `write_listing` wrote.

    Raises
    ------
    FrameListUnusable
        When it is not there, or is no such list.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [
            Frame(**{**one, "observed_at": datetime.fromisoformat(one["observed_at"])}) for one in content
        ]
    except (OSError, ValueError, TypeError, KeyError):
        raise FrameListUnusable(f"The list of frames {path} can't be read; stage the OP again.") from None


@dataclass(frozen=True, slots=True)
class Collection:
    """A place that Globus knows: ``<uuid>:/path``; the path is below which everything lies."""

    uuid: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Collection:
        """Read ``<uuid>:/path``.

        Raises
        ------
        ValueError
            When it is something else.
        """
        uuid, colon, path = text.partition(":")
        if not uuid or not colon or not path.startswith("/"):
            raise ValueError(f"{text!r} is no collection; write it as <uuid>:/path.")
        return cls(uuid, path.rstrip("/"))


def dataset_folders(package: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Bucket and folder of each dataset of an input package: the observatory keeps one for each."""
    proposal = package["proposal_id"]
    return [
        (dataset["bucket"], f"{proposal}/{dataset['dataset_id']}")
        for group in package["groups"]
        for dataset in group["datasets"]
    ]


def write_transfer_lists(
    folder: Path,
    package: Mapping[str, Any],
    *,
    source: Collection | None,
    destination: Collection | None,
) -> list[Path]:
    """Write what ``globus transfer --batch`` and ``rsync --files-from`` take, whole folders of datasets.

    Without collections the paths are those below the bucket's and the science side's roots.
    """
    out, into = folder / TRANSFER_FOLDER, safe_name(str(package["op_id"]))
    start = source.path if source else ""
    end = f"{destination.path}/{into}" if destination else f"/{into}"
    ends = f"{source.uuid if source else 'SOURCE'} {destination.uuid if destination else 'DESTINATION'}"
    folders = dataset_folders(package)
    globus = [f"# globus transfer {ends} --sync-level checksum --batch globus.txt"]
    globus += [
        f'--recursive "{start}/{bucket}/{path}/" "{end}/{PurePosixPath(path).name}/"'
        for bucket, path in folders
    ]
    rsync = [f"{bucket}/{path}/" for bucket, path in folders]
    return [_write_lines(out / "globus.txt", globus), _write_lines(out / "rsync.txt", rsync)]


def write_http_list(folder: Path, base: str, frames: Sequence[Frame]) -> Path:
    """Write the addresses of the available frames, as ``wget --input-file`` takes them."""
    lines = [f"{base}/{frame.bucket}/{frame.object_key}" for frame in frames if frame.is_available]
    return _write_lines(folder / TRANSFER_FOLDER / "http.txt", lines)


def _write_lines(path: Path, lines: Sequence[str]) -> Path:
    text = "\n".join(lines) + "\n"
    if not (path.is_file() and path.read_text(encoding="utf-8") == text):
        write_durably(path, lambda temporary: _write_text(temporary, text))
    return path


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
