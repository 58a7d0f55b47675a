"""Runs MLflow's OpenAI models over data of any size. As a library: ``from producer import submit``.

Nothing is imported before it is used: the command line's ``--help`` shall not wait for MLflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.notebook import iter_results, results, run, status, submit, wait_for

__all__ = ["iter_results", "results", "run", "status", "submit", "wait_for"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is exported
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from producer import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
