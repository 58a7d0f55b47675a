"""Log lines for people (text) or machines (JSON): a short message, the facts in ``extra``.

``event`` is what dashboards and tests match on. Prompts, replies and keys are never logged.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone

FIELDS = (
    "event",
    "job_id",
    "batch",
    "row_id",
    "attempt",
    "duration_s",
    "rows",
    "batches",
    "succeeded",
    "dead",
    "reason",
    "pause_s",
    "deliveries",
)


class TextFormatter(logging.Formatter):
    """``time LEVEL message key=value …``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on lines of its own."""
        facts = " ".join(f"{key}={value}" for key, value in _facts(record).items())
        line = f"{_time(record)} {record.levelname} {record.getMessage()}"
        text = f"{line} {facts}" if facts else line
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The fields of ``FIELDS`` that the record has, beside time, level, logger and message."""
        values: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str, ensure_ascii=False)


def set_up_logs(log_format: str, level: int = logging.INFO) -> None:
    """Send the root logger to stderr in the given format. Call once, at the entry."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # The SDK prepares requests that it does not send; its transport would log them as sent.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    # Celery's two lines per message know no job; ours, one per batch, does.
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    return {name: record.__dict__[name] for name in FIELDS if name in record.__dict__}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, tz=timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
