"""What the commands print of a job: while Redis knows it, and from its run alone afterwards."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from producer.cli import main
from tests.system import System

pytestmark = pytest.mark.integration

Command = Callable[..., tuple[int, str, str]]

TEXTS = ["a good day", "[[reject]]", 'with "quotes", commas\nand a line break']


@pytest.fixture
def command(
    system: System, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Run ``producer`` in this process: its exit status, stdout and stderr."""
    for name in ("REDIS_URL", "MLFLOW_TRACKING_URI", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, system.environment[name])
    monkeypatch.chdir(system.folder)

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["producer", *args])
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = capfd.readouterr()
        return status, out, err

    return run


@pytest.fixture
def job_id(system: System, command: Command) -> str:
    """A finished job of three rows, one of them dead."""
    path = system.folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    system.start_worker()
    status, out, err = command(
        "submit", str(path), "--prompt", "Say: {text}", "--openai-model", "gpt-4o-mini", "--wait",
        "--price", "1/2",
    )  # fmt: skip
    assert status == 3, err
    return out.strip()


def test_the_same_is_said_while_redis_knows_the_job_and_from_its_run_alone(
    system: System, command: Command, job_id: str
) -> None:
    def said() -> tuple[dict[str, Any], dict[str, Any]]:
        of_one = json.loads(command("status", job_id, "--json")[1])
        (of_all,) = json.loads(command("jobs", "--json")[1])
        return of_one, of_all

    live = said()
    system.redis().flushall()
    recorded = said()

    assert live[0] == live[1]
    assert recorded[0] == recorded[1]
    for name in ("job_id", "name", "state", "rows", "tokens", "requests", "cost_usd"):
        assert live[0][name] == recorded[0][name], name
    assert live[0]["rows"]["rejected"] == 1
    assert live[0]["cost_usd"] > 0


def test_tables_for_people_name_the_job_whole_also_in_a_pipe(command: Command, job_id: str) -> None:
    _, jobs, _ = command("jobs")
    _, status, _ = command("status", job_id)
    ended, _, watched = command("watch", job_id)

    assert job_id in jobs
    assert "3/3" in jobs
    assert "1 rejected" in status
    assert job_id in watched
    assert ended == 3


def test_results_come_in_every_format_with_the_inputs_beside_them(
    system: System, command: Command, job_id: str
) -> None:
    folder = system.folder
    _, lines, _ = command("results", job_id)
    _, table, _ = command("results", job_id, "--format", "csv")
    command("results", job_id, "-o", str(folder / "out.parquet"))

    rows = [json.loads(line) for line in lines.splitlines()]
    cells = list(csv.DictReader(io.StringIO(table, newline="")))
    columns = pq.read_table(folder / "out.parquet").to_pylist()
    assert [row["text"] for row in rows] == TEXTS
    assert [cell["text"] for cell in cells] == TEXTS
    assert [column["text"] for column in columns] == TEXTS
    for row, cell, column in zip(rows, cells, columns, strict=True):
        assert row["verdict"] == cell["verdict"] == column["verdict"]
        assert (row["output"] or "") == cell["output"] == (column["output"] or "")


def test_parquet_on_stdout_is_refused_with_the_remedy(command: Command, job_id: str) -> None:
    status, _, err = command("results", job_id, "--format", "parquet")

    assert status == 1
    assert "-o" in err


def test_a_model_without_a_price_costs_unknown_and_not_nothing(
    system: System, command: Command
) -> None:
    path = system.folder / "rows.txt"
    path.write_text("one\ntwo\n")
    system.start_worker()

    _, job_id, _ = command(
        "submit", str(path), "--prompt", "Say: {text}", "--openai-model", "my-own", "--wait"
    )

    assert json.loads(command("status", job_id.strip(), "--json")[1])["cost_usd"] is None
    assert "cost unknown" in command("status", job_id.strip())[1]


def test_the_demo_needs_nothing_and_says_that_it_is_simulated(system: System) -> None:
    nothing = ("REDIS_URL", "MLFLOW_TRACKING_URI", "OPENAI_API_KEY", "OPENAI_BASE_URL")

    done = system.producer("demo", without=nothing)

    assert done.returncode == 0, done.stderr
    assert "SIMULATED" in done.stderr
    assert "48 of 48" in done.stderr
    assert len(done.stdout.strip()) == 32
    assert (Path(system.folder) / "mlflow.db").exists()
