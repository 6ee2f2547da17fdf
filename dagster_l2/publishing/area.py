"""The publish area: where the files of an inversion lie for everybody, as ``<bucket>/<object name>``.

A folder, or an object store or file server mounted as one. What is published there is in ``release``; that
it was, in the ledger.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster_l2.base.files import fsync_folder, only_one, safe_name, sha256, step, write_durably
from dagster_l2.publishing.release import Release, ReleaseFile
from dagster_l2.publishing.rules import FilesDiffer

_LOCK_WAIT_S = 600.0


class PublishArea:
    """One publish area below ``folder``, made when something is put there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def only_publisher(self, inversion_id: str) -> Iterator[None]:
        """Be the only one who publishes this inversion with this area, waiting for another to end.

        Between machines without a common area, the ledger and the store decide; see docs/decisions/0008.

        Raises
        ------
        AlreadyRunning
            When another does not end in ten minutes.
        """
        lock = self.folder / ".locks" / f"{safe_name(inversion_id)}.lock"
        with only_one(lock, f"The publishing of {inversion_id}", wait_s=_LOCK_WAIT_S):
            yield

    def put(self, bucket: str, release: Release, *, is_told: bool) -> list[Path]:
        """Copy the files of a release and check each copy's sum; what is there and equal is left alone.

        Parameters
        ----------
        is_told
            Whether it was recorded before that they are there: then others may have read them, and a file
            that is other now is not replaced.

        Raises
        ------
        FilesDiffer
            A source is gone or no longer what was verified, or a file that is out there is another.
        OSError
            The disk or the share gives up.
        """
        self._remove_leftovers(self.folder / safe_name(bucket) / release.prefix)
        paths = [self._put(bucket, release, file, is_told=is_told) for file in release.files]
        for folder in {path.parent for path in paths}:
            # Once for all: a folder is synced in as long as a file, and a release may have hundreds.
            step(f"fsync {folder.name}")
            fsync_folder(folder)
        return paths

    def _remove_leftovers(self, folder: Path) -> None:
        # A kill leaves the temporary file of `write_durably`; no other publisher of the inversion is at work.
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def _put(self, bucket: str, release: Release, file: ReleaseFile, *, is_told: bool) -> Path:
        target = self.folder / safe_name(bucket) / release.object_name(file)
        if target.is_file():
            if target.stat().st_size == file.size and (is_told or sha256(target) == file.sha256):
                return target
            if is_told:
                raise FilesDiffer(
                    f"{target} was published and is now another file; bring back the one with the SHA-256"
                    f" {file.sha256}, then retry."
                )

        def copy(temporary: Path) -> None:
            shutil.copyfile(file.source, temporary)
            if sha256(temporary) != file.sha256:
                raise FilesDiffer(
                    f"{file.source} is not what was verified; withdraw {release.inversion_id} and hand it"
                    " over again."
                )

        try:
            write_durably(target, copy, is_last=False)
        except FileNotFoundError:
            raise FilesDiffer(
                f"{file.source} is no longer there; withdraw {release.inversion_id} and hand it over again."
            ) from None
        return target
