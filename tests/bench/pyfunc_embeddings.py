"""``python -m tests.bench.pyfunc_embeddings FILE ROWS``: embeddings by MLflow's own pyfunc.

Prints the seconds and the CPU of ``predict`` alone as JSON. The model is made and loaded first.
"""

from __future__ import annotations

import json
import sys
import time

import mlflow
import pandas as pd

import flavor


def main() -> None:
    """Log a model, load it as a pyfunc, embed, print."""
    path, rows = sys.argv[1], int(sys.argv[2])
    with mlflow.start_run():
        logged = flavor.log_model(model="text-embedding-3-small", task="embeddings", name="embed")
    model = mlflow.pyfunc.load_model(logged.model_uri)
    frame = pd.read_json(path, lines=True, nrows=rows)[["text"]]
    model.predict(frame.head(10))
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    vectors = model.predict(frame)
    figures = {"seconds": time.monotonic() - began_s, "cpu_s": time.process_time() - began_cpu_s}
    assert len(vectors) == rows
    assert len(vectors[0]) == 1536
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
