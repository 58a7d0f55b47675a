"""The rows that are sent: made-up reviews of about 300 bytes each, the same every time."""

from __future__ import annotations

import json
import random
from itertools import accumulate
from pathlib import Path
from string import ascii_lowercase

_VOCABULARY = """
the a battery lasts two full days which is more than hoped for hinge broke after week nobody
answers phone arrived on Tuesday in brown box great value it does what expensive ones do
terrible overheats as soon as connect second device cable one metre long black sturdy cheap
"""


TEXTS = ("reviews", "prose", "letters")
"""Kinds of texts, by how far they can be packed: few words; many, as often as in English; none."""


def write_rows(path: Path, count: int, *, characters: int = 270, texts: str = "reviews") -> Path:
    """Write so many rows with an ``id`` and a ``text`` as JSON lines."""
    draw = random.Random(1)
    words, weights = _vocabulary(texts)
    with path.open("w") as file:
        for number in range(count):
            chosen = draw.choices(words, cum_weights=weights, k=characters // 5)
            text = f"Review {number}: {' '.join(chosen)}"[:characters]
            file.write(json.dumps({"id": f"r{number}", "text": text}) + "\n")
    return path


def _vocabulary(texts: str) -> tuple[list[str], list[float] | None]:
    if texts == "reviews":
        return _VOCABULARY.split(), None
    draw = random.Random(2)
    shortest, longest, count = (2, 8, 20_000) if texts == "prose" else (4, 8, 1_000_000)
    words = [
        "".join(draw.choices(ascii_lowercase, k=draw.randint(shortest, longest)))
        for _ in range(count)
    ]
    # Zipf's law: the n-th commonest word is 1/n as common as the first.
    weights = [1 / rank for rank in range(1, count + 1)]
    return words, list(accumulate(weights)) if texts == "prose" else None
