"""A prompt of MLflow's prompt registry as a model: its ``model_config`` says what to send it to.

A door, as ``flavor.loading`` is, and for the same reason with its import inside.
"""

from __future__ import annotations

from collections.abc import Mapping

from flavor.errors import InputError
from flavor.params import check_params
from flavor.spec import ModelSpec, read_slots
from flavor.template import Syntax
from flavor.types import Json, Task

# MLflow's names (entities/model_registry/prompt_version.py, PromptModelConfig) where OpenAI has
# others.
_RENAMED = {"stop_sequences": "stop"}


def read_prompt(uri: str, *, openai_model: str | None) -> ModelSpec:
    """What is registered at a ``prompts:/`` URI. Blocks: asks MLflow.

    Raises:
        InputError: it names no OpenAI model, another provider's, or has a template that cannot
        work.
    """
    from mlflow import MlflowClient

    # An alias may have moved since it was cached, and a job is bound to what it finds for all its
    # rows.
    prompt = MlflowClient().load_prompt(uri, cache_ttl_seconds=0)
    template: Json = prompt.template
    messages = [{"role": "user", "content": template}] if isinstance(template, str) else template
    try:
        name, params = _read_config(prompt.model_config or {}, prompt.response_format)
        slots = read_slots(Task.CHAT, messages, syntax=Syntax.DOUBLE_BRACE, column=None)
    except InputError as error:
        raise InputError(f"cannot run prompt {uri!r}: {error}") from error
    if not (name or openai_model):
        raise InputError(f"prompt {uri!r} names no model in its model_config; give --openai-model")
    return ModelSpec(
        uri=uri,
        resolved_uri=f"prompts:/{prompt.name}/{prompt.version}",
        registered_name=prompt.name,
        registered_version=str(prompt.version),
        task=Task.CHAT,
        openai_model=name or openai_model,
        template=messages,
        syntax=Syntax.DOUBLE_BRACE,
        variables=slots.variables,
        aliases=slots.aliases,
        accepts_messages=slots.accepts_messages,
        params=params,
    )


def _read_config(
    config: Mapping[str, Json], response_format: Mapping[str, Json] | None
) -> tuple[str | None, dict[str, Json]]:
    settings = dict(config)
    provider = settings.pop("provider", None)
    if provider and str(provider).lower() not in {"openai", "azure", "azure_openai"}:
        raise InputError(f"its provider is {provider!r}, not openai")
    name = settings.pop("model_name", None)
    params = {_RENAMED.get(key, key): value for key, value in settings.items()}
    if response_format:
        params.setdefault("response_format", _as_response_format(response_format))
    check_params(Task.CHAT, params)
    return name, params


def _as_response_format(schema: Mapping[str, Json]) -> Json:
    """The registry keeps a bare JSON schema; OpenAI wants it named, in an envelope."""
    if schema.get("type") in {"json_schema", "json_object", "text"}:
        return schema  # somebody registered the envelope itself
    name = "".join(c if c.isalnum() or c in "_-" else "_" for c in str(schema.get("title") or ""))
    return {"type": "json_schema", "json_schema": {"name": name or "response", "schema": schema}}
