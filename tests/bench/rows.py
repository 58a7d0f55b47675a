"""The rows that are sent: made-up reviews of about 300 bytes each, the same every time."""

from __future__ import annotations

import json
import random
from pathlib import Path

_VOCABULARY = """
the a battery lasts two full days which is more than hoped for hinge broke after week nobody
answers phone arrived on Tuesday in brown box great value it does what expensive ones do
terrible overheats as soon as connect second device cable one metre long black sturdy cheap
"""


def write_rows(path: Path, count: int, *, characters: int = 270) -> Path:
    """Write so many rows with an ``id`` and a ``text`` as JSON lines."""
    draw = random.Random(1)
    vocabulary = _VOCABULARY.split()
    with path.open("w") as file:
        for number in range(count):
            words = draw.choices(vocabulary, k=characters // 5)
            text = f"Review {number}: {' '.join(words)}"[:characters]
            file.write(json.dumps({"id": f"r{number}", "text": text}) + "\n")
    return path
