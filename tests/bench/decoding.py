"""What it costs to decode an answer with embeddings: its JSON and its base64, nothing else."""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import orjson
import pybase64

from flavor.client import _decode
from flavor.model import ROWS_PER_REQUEST
from flavor.replies import _vector
from flavor.types import Task

ROUNDS = 50


def decoding_ms(*, dimensions: int) -> float:
    """CPU of a row in ms, the median of many answers: by the functions that a worker calls."""
    rows = ROWS_PER_REQUEST[Task.EMBEDDINGS]
    body = _answer(rows, dimensions)
    spent_s = []
    for _ in range(ROUNDS):
        began_s = time.thread_time()
        vectors = [_vector(item["embedding"]) for item in _decode(body, {})["data"]]
        spent_s.append(time.thread_time() - began_s)
        assert len(vectors) == rows
        assert len(vectors[0]) == 4 * dimensions
    return median(spent_s) / rows * 1000


def _answer(rows: int, dimensions: int) -> bytes:
    numbers = np.random.default_rng(0).standard_normal((rows, dimensions), dtype=np.float32)
    data = [
        {"object": "embedding", "index": index, "embedding": pybase64.b64encode_as_string(row.data)}
        for index, row in enumerate(numbers)
    ]
    usage = {"prompt_tokens": rows, "total_tokens": rows}
    return orjson.dumps({"object": "list", "data": data, "model": "any", "usage": usage})
