"""Log lines for people (text) and for machines (JSON, one object a line), on standard error.

What a line is about comes from ``telemetry``; who logs what is in the rooms.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from dagster_l2.base.telemetry import ids_at_hand

LogFormat = Literal["text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, what it is about, and the line's own values."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        content: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_about(record),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


class TextLines(logging.Formatter):
    """Time, level and message on one line, then what it is about as ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        about = "".join(f" {name}={value}" for name, value in _about(record).items())
        message = " ".join(record.getMessage().split())
        line = f"{_moment(record)} {record.levelname} {message}{about}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _about(record: logging.LogRecord) -> dict[str, Any]:
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {**ids_at_hand(), **extra}


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class _ToStandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment."""

    def __init__(self, formatter: logging.Formatter) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(formatter)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def log_as(form: LogFormat | None) -> None:
    """Log the package's lines in this format; None leaves logging as it is. May be called again."""
    if form is None:
        return
    logger = logging.getLogger("dagster_l2")
    for handler in [handler for handler in logger.handlers if isinstance(handler, _ToStandardError)]:
        logger.removeHandler(handler)
    logger.addHandler(_ToStandardError(JsonLines() if form == "json" else TextLines()))
    logger.setLevel(logging.INFO)
    logger.propagate = False
