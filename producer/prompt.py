"""``--prompt`` and ``--openai-model``: a model made on the spot, logged so that workers load it."""

from __future__ import annotations

import flavor
from flavor.errors import InputError
from flavor.model import ModelSpec, read_spec
from flavor.spec import read_slots
from flavor.template import Syntax
from flavor.types import Task
from worker.runs import Runs


def prompt_spec(prompt: str | None, *, openai_model: str, task: Task | None) -> ModelSpec:
    """What the model will be, before it is logged.

    Without a task, a model whose name says "embedding" embeds, any other chats.

    Raises:
        InputError: the prompt cannot work as a template, or the task takes none.
    """
    if task is None:
        task = Task.EMBEDDINGS if "embedding" in openai_model else Task.CHAT
    if task is Task.EMBEDDINGS and prompt is not None:
        raise InputError("an embedding model takes no --prompt: it embeds the text as it is")
    template = [{"role": "user", "content": prompt}] if prompt and task is Task.CHAT else prompt
    slots = read_slots(task, template, syntax=Syntax.FORMAT, column=None)
    return ModelSpec(
        uri="",
        resolved_uri="",
        task=task,
        openai_model=openai_model,
        template=template,
        variables=slots.variables,
        aliases=slots.aliases,
        accepts_messages=slots.accepts_messages,
    )


def log_prompt_model(runs: Runs, spec: ModelSpec, *, experiment: str) -> ModelSpec:
    """Log the model into the experiment and return it as logged. Blocks."""
    runs.select_experiment(experiment)
    filled = {Task.CHAT: "messages", Task.COMPLETIONS: "prompt"}.get(spec.task)
    template = {filled: spec.template} if filled and spec.template else {}
    info = flavor.log_model(
        model=spec.openai_model or "",
        task=spec.task.value,
        name="prompt-model",
        **template,
    )
    return read_spec(info.model_uri)
