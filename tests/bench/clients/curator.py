"""Bespoke Labs' curator: an ``LLM`` over a list of prompts, its cache new for each run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

# It counts tokens with tiktoken, whose file comes with LiteLLM; else it would be downloaded.
_LITELLM = getattr(find_spec("litellm"), "submodule_search_locations", None) or [""]
os.environ.update(
    TIKTOKEN_CACHE_DIR=str(Path(_LITELLM[0], "litellm_core_utils", "tokenizers")),
    LITELLM_LOCAL_MODEL_COST_MAP="true",
    CURATOR_DISABLE_RICH_DISPLAY="1",
    TELEMETRY_ENABLED="false",
)

from bespokelabs import curator  # noqa: E402 - reads the environment on its import

from tests.bench.clients.job import KEY, OPENAI_MODEL, Job, messages, run  # noqa: E402


class _Classifier(curator.LLM):  # type: ignore[misc] # curator has no types
    """A row's chat as its prompt, the answer's text as its row."""

    def prompt(self, row: dict[str, str]) -> list[dict[str, str]]:
        return messages(row["text"])

    def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
        return {"text": row["text"], "answer": response}


def classifier(job: Job) -> Callable[[list[str]], list[str | None]]:
    """Set up."""
    os.environ["OPENAI_API_KEY"] = KEY
    made = _Classifier(
        model_name=OPENAI_MODEL,
        backend="openai",
        backend_params={
            "base_url": job.base_url,
            "max_requests_per_minute": 100_000_000,
            "max_tokens_per_minute": 100_000_000_000,
            "max_concurrent_requests": job.concurrency,
        },
    )

    def send(texts: list[str]) -> list[str | None]:
        with tempfile.TemporaryDirectory(prefix="curator-") as folder:
            done = made([{"text": text} for text in texts], working_dir=str(Path(folder)))
            rows = getattr(done, "dataset", done)
            return [row["answer"] for row in rows]

    return send


if __name__ == "__main__":
    run(classifier)
