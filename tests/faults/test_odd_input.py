"""Rows that other programs choke on go in and come out as they were, each with its own answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.jobs import PROMPT, verified, wait_for_end
from tests.system import System

pytestmark = [pytest.mark.integration, pytest.mark.faults]

MEGABYTE = 1_000_000

ODD: dict[str, str] = {
    "007": "the id is text, and stays so",
    "7": "and is not the one above",
    "long": "x" * (10 * MEGABYTE),
    "nul": "a\x00b",
    "surrogate": "a\ud800b",
    "right-to-left": "\u202e\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627\u202c",
    "empty": "",
    "blank": " \n\t ",
    "braces": "{text} {{}} {0} %s {'a': 1} }{",
    "quotes": '"\\" \\u0000 \\n',
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈",
    "i" * 1024: "the id is as long as may be",
    "comma,and;more \u202e👩": "the id is odd",
}


def _results(system: System, job_id: str) -> dict[str, dict[str, Any]]:
    path = system.folder / "results.jsonl"
    done = system.producer("results", job_id, "-o", str(path))
    assert done.returncode == 0, done.stderr
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    return {row["row_id"]: row for row in rows}


def test_every_odd_row_has_its_own_answer_and_keeps_its_id(system: System) -> None:
    path = system.folder / "odd.jsonl"
    lines = [json.dumps({"id": row_id, "text": text}) + "\n" for row_id, text in ODD.items()]
    path.write_text("".join(lines))
    system.simulator.configure(context_tokens=100 * MEGABYTE)
    system.start_worker()
    done = system.producer("submit", str(path), *PROMPT, "--id-column", "id", "--batch-size", "4")
    assert done.returncode == 0, done.stderr
    job_id = done.stdout.strip()
    wait_for_end(system, job_id, expected=3)

    assert verified(system, job_id)["outcomes"] == len(ODD)
    rows = _results(system, job_id)
    assert list(rows) == list(ODD)
    dead = {row_id: row["error_status"] for row_id, row in rows.items() if row["error_type"]}
    assert dead == {"surrogate": 400}  # the API refuses such a text, and that costs one row
    assert system.simulator.stats()["rows_distinct"] == len(ODD) - 1  # no two texts became one


def test_an_id_of_a_million_characters_is_refused_with_its_line(system: System) -> None:
    path = system.folder / "odd.jsonl"
    path.write_text(json.dumps({"id": "i" * MEGABYTE, "text": "x"}) + "\n")

    refused = system.producer("submit", str(path), *PROMPT, "--id-column", "id")

    assert refused.returncode == 1
    assert "odd.jsonl:1" in refused.stderr
    assert len(refused.stderr) < 1000
    assert not any(system.redis().scan_iter("job*"))


def test_embeddings_that_come_back_in_any_order_find_their_rows(system: System) -> None:
    texts = [f"text {number}" for number in range(40)]
    path = system.folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    system.start_worker()
    outputs = []
    for is_shuffled in (False, True):
        system.simulator.configure(shuffle_embeddings=is_shuffled)
        done = system.producer(
            "submit", str(path), "--openai-model", "text-embedding-3-small", "--wait"
        )
        assert done.returncode == 0, done.stderr
        rows = _results(system, done.stdout.strip())
        outputs.append([row["output"] for row in rows.values()])

    assert outputs[0] == outputs[1]
    assert len({tuple(output) for output in outputs[0]}) == len(texts)


_DEADLY = """
import os
import mlflow

class Deadly(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        texts = list(model_input["text"])
        if "die" in texts:
            os.kill(os.getpid(), 9)
        return [f"seen {text}" for text in texts]

mlflow.models.set_model(Deadly())
"""


def _log_deadly(system: System) -> str:
    (system.folder / "deadly.py").write_text(_DEADLY)
    log = (
        "import mlflow; from mlflow.models import infer_signature; import pandas as pd;"
        "s = infer_signature(pd.DataFrame({'text': ['a']}), ['b']);"
        "print(mlflow.pyfunc.log_model(name='deadly', python_model='deadly.py', signature=s,"
        " pip_requirements=[]).model_uri)"
    )
    return system.python(log).strip().splitlines()[-1]


def _write_deadly_rows(system: System) -> Path:
    path = system.folder / "rows.txt"
    path.write_text("".join(f"row {n}\n" if n != 25 else "die\n" for n in range(60)))
    return path


def test_a_batch_that_keeps_killing_its_worker_is_set_aside_and_the_others_end_well(
    system: System,
) -> None:
    uri, path = _log_deadly(system), _write_deadly_rows(system)
    settings = {"BATCH_LEASE_S": "3", "BATCH_MAX_DELIVERIES": "2", "BATCH_OPEN_BATCHES": "1"}
    worker = system.start_worker(**settings)
    done = system.producer("submit", str(path), "--model", uri, "--batch-size", "20")
    assert done.returncode == 0, done.stderr
    job_id = done.stdout.strip()
    for _ in range(2):
        worker.wait(60)
        worker = system.start_worker(**settings)
    wait_for_end(system, job_id, expected=3)

    rows = _results(system, job_id)
    dead = {int(row_id) for row_id, row in rows.items() if row["verdict"] == "exhausted"}
    assert worker.poll() is None
    assert len(rows) == 60
    assert {row["error_type"] for row in rows.values()} == {None, "BatchSetAside"}
    assert len(dead) == 20


@pytest.mark.soak
def test_run_on_this_machine_outlives_a_deadly_batch(system: System) -> None:
    uri, path = _log_deadly(system), _write_deadly_rows(system)

    done = system.producer(
        "run", str(path), "--model", uri, "--batch-size", "20", without=("REDIS_URL",)
    )

    assert done.returncode == 3, done.stderr
    rows = _results(system, done.stdout.strip())
    assert sum(row["error_type"] == "BatchSetAside" for row in rows.values()) == 20
    assert sum(row["verdict"] == "succeeded" for row in rows.values()) == 40
