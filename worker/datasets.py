"""The job's input as MLflow knows it: what it was, never the data itself."""

from __future__ import annotations

import json

from mlflow.entities import Dataset

from worker.columns import Columns


def input_dataset(*, name: str, sha256: str, rows: int, columns: Columns) -> Dataset:
    """The job's input as MLflow's UI shows it: name, digest, rows and columns; no data."""
    schema = {
        "mlflow_colspec": [
            {"type": kind.value, "name": column, "required": column not in columns.optional}
            for column, kind in columns.kinds.items()
        ]
    }
    return Dataset(
        name=name[:500],
        digest=sha256[:32],
        source_type="local",
        source=json.dumps({"uri": name, "sha256": sha256}),
        schema=json.dumps(schema),
        profile=json.dumps({"num_rows": rows}),
    )
