"""Whatever is wrong is said in one line with status 1, and nothing is sent or left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from producer.cli import main
from tests.system import System

pytestmark = pytest.mark.integration

Submit = Callable[..., str]

_PROMPT = ("--prompt", "Say: {text}", "--openai-model", "gpt-4o-mini")


@pytest.fixture
def refused(
    system: System, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Submit:
    """Run ``producer`` with these arguments and return its one line of error."""
    for name in ("REDIS_URL", "MLFLOW_TRACKING_URI", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, system.environment[name])
    monkeypatch.chdir(system.folder)

    def run(*args: str, unset: str | None = None, **environment: str) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        if unset is not None:
            monkeypatch.delenv(unset)
        monkeypatch.setattr("sys.argv", ["producer", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert ended.value.code == 1, err
        assert out == ""
        assert system.simulator.stats()["requests"] == 0
        assert system.redis().keys("job*") == []
        (line,) = err.strip().splitlines()
        return line

    return run


@pytest.fixture
def rows(system: System) -> Path:
    """A good file of two rows."""
    path = system.folder / "rows.jsonl"
    path.write_text('{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n')
    return path


def test_a_missing_file_is_named(refused: Submit) -> None:
    assert "nothing.csv" in refused("submit", "nothing.csv", *_PROMPT)


def test_a_missing_column_is_named_with_those_that_are_there(refused: Submit, rows: Path) -> None:
    rows.write_text('{"id": 1, "body": "one"}\n')

    line = refused("submit", str(rows), *_PROMPT)

    assert "'text'" in line
    assert "body" in line
    assert "--column text=" in line


def test_a_duplicate_id_is_named_with_both_lines(refused: Submit, rows: Path) -> None:
    rows.write_text('{"id": 1, "text": "x"}\n{"id": 2, "text": "x"}\n{"id": 1, "text": "x"}\n')

    line = refused("submit", str(rows), *_PROMPT, "--id-column", "id")

    assert "rows.jsonl:1" in line
    assert "rows.jsonl:3" in line


def test_broken_json_is_named_with_its_line(refused: Submit, rows: Path) -> None:
    rows.write_text('{"text": "fine"}\n{"text": "broken\n')

    assert "rows.jsonl:2" in refused("submit", str(rows), *_PROMPT)


def test_an_unknown_model_is_named(refused: Submit, rows: Path) -> None:
    assert "models:/nobody/1" in refused("submit", str(rows), "--model", "models:/nobody/1")


def test_a_model_uri_that_is_none_is_named(refused: Submit, rows: Path) -> None:
    assert "no-such-folder" in refused("submit", str(rows), "--model", "no-such-folder")


def test_no_model_at_all_names_the_options(refused: Submit, rows: Path) -> None:
    line = refused("submit", str(rows))

    assert "--model" in line
    assert "--prompt" in line


def test_an_unknown_parameter_is_named_with_the_nearest(refused: Submit, rows: Path) -> None:
    line = refused("submit", str(rows), *_PROMPT, "--param", "temprature=0")

    assert "'temprature'" in line
    assert "'temperature'" in line


def test_a_rows_own_unknown_parameter_is_named_with_its_line(refused: Submit, rows: Path) -> None:
    rows.write_text(json.dumps({"text": "x", "params": {"temprature": 0}}) + "\n")

    line = refused("submit", str(rows), *_PROMPT)

    assert "rows.jsonl:1" in line
    assert "'temprature'" in line


def test_a_template_that_cannot_work_is_refused(refused: Submit, rows: Path) -> None:
    line = refused("submit", str(rows), "--prompt", "Say {}", "--openai-model", "gpt-4o-mini")

    assert "{}" in line


def test_an_unreachable_redis_is_named_without_its_password(refused: Submit, rows: Path) -> None:
    line = refused("submit", str(rows), *_PROMPT, REDIS_URL="redis://:hush@127.0.0.1:1/0")

    assert "127.0.0.1:1" in line
    assert "REDIS_URL" in line
    assert "hush" not in line


def test_an_unreachable_mlflow_is_named(refused: Submit, rows: Path) -> None:
    line = refused("submit", str(rows), *_PROMPT, MLFLOW_TRACKING_URI="http://127.0.0.1:1")

    assert "127.0.0.1:1" in line
    assert "MLFLOW_TRACKING_URI" in line


def test_run_without_a_key_names_the_variable(refused: Submit, rows: Path) -> None:
    line = refused("run", str(rows), *_PROMPT, unset="OPENAI_API_KEY")

    assert "OPENAI_API_KEY" in line


def test_run_without_workers_names_the_redis_that_others_would_serve(
    refused: Submit, rows: Path
) -> None:
    """It waited for ever: nobody else knows the Redis that it starts."""
    line = refused("run", str(rows), *_PROMPT, "--workers", "0", unset="REDIS_URL")

    assert "--workers 0 needs REDIS_URL" in line


def test_a_misspelt_setting_is_named_with_the_nearest(refused: Submit, rows: Path) -> None:
    line = refused("submit", str(rows), *_PROMPT, BATCH_CONCURENCY="8")

    assert "BATCH_CONCURENCY" in line
    assert "BATCH_CONCURRENCY" in line


def test_an_unknown_job_is_named(refused: Submit) -> None:
    for command in ("status", "results", "cancel", "watch", "resume"):
        assert "f00" in refused(command, "f00"), command
