"""Log lines: the ids are there, prompts and keys are not."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from worker.logs import FIELDS, JsonFormatter, TextFormatter, set_up_logs

FACTS = {"event": "batch_done", "job_id": "job1", "batch": "3", "rows": 200, "duration_s": 1.5}


def _record(message: str = "batch ended", **extra: Any) -> logging.LogRecord:
    logger = logging.getLogger("worker.batch")
    record = logger.makeRecord(
        logger.name, logging.INFO, "file", 1, message, (), None, extra={**FACTS, **extra}
    )
    record.created = 1795341600.25  # 2026-11-22T10:00:00.250Z
    return record


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_a_text_line_carries_the_ids() -> None:
    line = TextFormatter().format(_record())

    assert line == (
        "2026-11-22T10:00:00.250Z INFO batch ended "
        "event=batch_done job_id=job1 batch=3 duration_s=1.5 rows=200"
    )


def test_a_json_line_carries_the_ids() -> None:
    values = json.loads(JsonFormatter().format(_record()))

    assert values == {
        "time": "2026-11-22T10:00:00.250Z",
        "level": "INFO",
        "logger": "worker.batch",
        "message": "batch ended",
        **FACTS,
    }


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_prompts_and_replies_are_never_logged(formatter: logging.Formatter) -> None:
    """Whatever stands in ``extra`` under a name that is not a fixed field stays out."""
    extra: dict[str, Any] = {
        "prompt": "MY PROMPT",
        "output": "MY OUTPUT",
        "values": {"text": "MY TEXT"},
    }

    assert "MY " not in formatter.format(_record(**extra))
    assert not set(FIELDS) & set(extra)


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_traceback_follows_its_line(formatter: logging.Formatter) -> None:
    record = _record()
    error = ValueError("broken")
    record.exc_info = (ValueError, error, None)

    assert "ValueError: broken" in formatter.format(record)


def test_a_json_line_is_one_line_whatever_it_holds() -> None:
    line = JsonFormatter().format(_record("two\nlines é", reason=ValueError("a\nb")))

    assert "\n" not in line
    assert json.loads(line)["reason"] == "a\nb"


@pytest.mark.parametrize(("log_format", "is_json"), [("text", False), ("json", True)])
def test_lines_go_to_stderr_in_the_format_asked_for(
    capsys: pytest.CaptureFixture[str], root: logging.Logger, log_format: str, *, is_json: bool
) -> None:
    set_up_logs(log_format)

    logging.getLogger("worker.test").info("hello", extra={"event": "greeted"})
    logging.getLogger("httpx2").info("a request that the SDK only prepares")

    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("{") is is_json
    assert "greeted" in err


def test_celery_adds_no_lines_without_ids_to_ours(root: logging.Logger) -> None:
    """It would say of each message that it came and that it went, under a number of its own."""
    set_up_logs("json")

    for name in ("celery.worker.strategy", "celery.app.trace"):
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)
        assert logging.getLogger(name).isEnabledFor(logging.ERROR)
