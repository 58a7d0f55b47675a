"""The project as a library: a DataFrame in, a DataFrame out, also where an event loop runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pandas as pd
import pytest

from flavor.errors import InputError
from producer import iter_results, results, status, submit
from producer.notebook import JobOptions
from tests.system import System

pytestmark = pytest.mark.integration

REVIEWS = pd.DataFrame(
    {
        "review": ["a", "b", "c"],
        "text": ["It works.", "[[reject]]", "It broke."],
        "stars": pd.array([5, None, 1], dtype="Int64"),
    }
)
PROMPT: JobOptions = {"prompt": "Say: {text}", "openai_model": "gpt-4o-mini"}


@pytest.fixture
def notebook(system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    """The system, named by this process's environment."""
    for name in ("REDIS_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, system.environment[name])
    monkeypatch.chdir(system.folder)
    return system


async def test_a_dataframe_goes_in_and_comes_back_with_the_answers_beside_it(
    notebook: System,
) -> None:
    """Called from a coroutine, as every cell of a notebook is."""
    assert asyncio.get_running_loop().is_running()
    notebook.start_worker()

    options: JobOptions = {**PROMPT, "id_column": "review", "input_name": "reviews"}
    job_id = submit(REVIEWS, wait=True, **options)

    frame = results(job_id)
    assert list(frame["row_id"]) == ["a", "b", "c"]
    assert list(frame["text"]) == list(REVIEWS["text"])
    assert list(frame["stars"].fillna(0)) == [5, 0, 1]
    assert list(frame["verdict"]) == ["succeeded", "rejected", "succeeded"]
    assert frame["output"].notna().tolist() == [True, False, True]
    assert status(job_id).name == "reviews · gpt-4o-mini"
    dead = list(iter_results(job_id, failed=True, columns=["row_id", "error_message"]))
    assert [row["row_id"] for row in dead] == ["b"]


def test_what_is_wrong_with_a_dataframe_is_said_with_its_row(notebook: System) -> None:
    holes = REVIEWS.assign(text=["a", None, "c"])

    with pytest.raises(InputError, match=r"^row 2: the column 'text' is null"):
        submit(holes, **PROMPT)


def test_the_library_is_one_import_that_costs_nothing_before_it_is_used() -> None:
    code = (
        "import sys, producer; "
        "assert not {'mlflow', 'pandas', 'redis', 'celery'} & set(sys.modules); "
        "assert 'submit' in dir(producer); "
        "from producer import submit, results; "
        "import producer.submission, producer.outcomes; "
        "assert callable(submit) and callable(producer.results)"
    )

    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
