"""When the garbage collector takes stock of a process, and what it looks at from then on."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TypeAlias

from flavor.model import OpenAIModel, PyfuncModel

Model: TypeAlias = OpenAIModel | PyfuncModel


def is_worth_a_look(model: Model, others: Sequence[Model]) -> bool:
    """Whether the collector shall take stock: one of OpenAI's models more is next to nothing."""
    return not others or any(isinstance(loaded, PyfuncModel) for loaded in (model, *others))


def settle_memory(*, has_old_models: bool = True) -> None:
    """Let the garbage collector take what is there now as given: MLflow alone is 500,000 objects.

    Looking at all of them again every two seconds held the event loop up for 0.2 s, a sixth of a
    row's CPU. A few hundred rows in flight are some ten thousand more, that go as they came.
    What went with a model is found in 0.3 s; without ``has_old_models`` there is none.
    """
    if has_old_models:
        gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
