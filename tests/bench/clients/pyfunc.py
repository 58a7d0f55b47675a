"""MLflow's own way: a model of its OpenAI flavor, ``pyfunc.load_model(…).predict``: ten threads."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable

import mlflow
import pandas as pd

from tests.bench.clients.job import KEY, OPENAI_MODEL, SYSTEM, Job, run


def pyfunc(job: Job) -> Callable[[list[str]], list[str | None]]:
    """Set up."""
    warnings.simplefilter("ignore")
    os.environ.update(
        OPENAI_API_KEY=KEY, OPENAI_API_BASE=job.base_url, OPENAI_BASE_URL=job.base_url
    )
    folder = tempfile.mkdtemp(prefix="pyfunc-")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    chat = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "{text}"}]
    mlflow.openai.save_model(
        model=OPENAI_MODEL, task="chat.completions", path=f"{folder}/model", messages=chat
    )
    model = mlflow.pyfunc.load_model(f"{folder}/model")

    def send(texts: list[str]) -> list[str | None]:
        return list(model.predict(pd.DataFrame({"text": texts})))

    return send


if __name__ == "__main__":
    run(pyfunc)
