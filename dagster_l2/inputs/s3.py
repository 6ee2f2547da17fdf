"""Frames in an S3-compatible object store; needs the extra ``s3`` (obstore)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dagster_l2.base.errors import WrongUse
from dagster_l2.base.ranges import strong_tag
from dagster_l2.base.telemetry import count
from dagster_l2.batch import FailureClass
from dagster_l2.inputs.frames import Frame
from dagster_l2.inputs.objects import FrameNotFetched, begun, keep, keep_tag, kept_tag, part_of

_PIECE = 1 << 20


class S3Objects:
    """Buckets of frames by their names.

    Parameters
    ----------
    endpoint
        Address of the store; None: Amazon's.
    key, secret
        None: as the surroundings of the process say (profile, role, ``AWS_…``).
    """

    most_at_once = 64

    def __init__(
        self, *, endpoint: str | None, region: str, key: str | None = None, secret: str | None = None
    ) -> None:
        try:
            import obstore
        except ImportError:
            raise WrongUse("Frames from s3:// need obstore: install dagster_l2[s3].") from None
        self._obstore: Any = obstore
        named = {"endpoint": endpoint, "access_key_id": key, "secret_access_key": secret}
        self._options = {name: value for name, value in named.items() if value} | {"region": region}
        self._buckets: dict[str, Any] = {}

    def close(self) -> None:
        """Nothing is open."""

    def gather(self, wanted: Sequence[tuple[Frame, Path]]) -> None:
        """They come one by one."""

    def fetch(self, frame: Frame, target: Path) -> None:
        """See `Objects`."""
        part = part_of(target)
        have = begun(frame, part)
        errors = self._obstore.exceptions
        try:
            answer = self._ask(frame, have)
            tag = strong_tag(answer.meta["e_tag"])
            if have and (answer.range[0] != have or kept_tag(part) not in (None, tag)):
                have = 0  # it is another content by now
                answer = self._ask(frame, have)
            with part.open("ab" if have else "wb") as file:
                if not have:
                    keep_tag(part, strong_tag(answer.meta["e_tag"]))
                for piece in answer.stream(min_chunk_size=_PIECE):
                    file.write(piece)
                    count("received_bytes", len(piece))
        except FileNotFoundError as error:
            if error.errno is not None:
                raise
            raise self._failed(frame, "it is not there", FailureClass.PERMANENT) from None
        except (errors.PermissionDeniedError, errors.UnauthenticatedError):
            raise self._failed(frame, "the key may not read it", FailureClass.PERMANENT) from None
        except errors.BaseError as error:
            if have and "416" in str(error):
                part.unlink()  # nothing is behind it, so another try begins anew
            said = " ".join(str(error).split())[:200]
            raise self._failed(frame, said, FailureClass.PASSING) from None
        keep(frame, part, target)

    def _ask(self, frame: Frame, start: int) -> Any:
        count("api_requests")
        options = {"range": {"offset": start}} if start else None
        return self._obstore.get(self._bucket(frame.bucket), frame.object_key, options=options)

    def _bucket(self, name: str) -> Any:
        if name not in self._buckets:
            from obstore.store import S3Store

            make: Any = S3Store
            self._buckets[name] = make(
                name, **self._options, client_options={"allow_http": True}, retry_config={"max_retries": 2}
            )
        return self._buckets[name]

    @staticmethod
    def _failed(frame: Frame, why: str, kind: FailureClass) -> FrameNotFetched:
        return FrameNotFetched(f"Frame {frame.object_key} does not come from its bucket ({why}).", kind)
