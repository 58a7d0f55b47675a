"""Reads what was logged, by any of MLflow's URIs. Nothing of the model is run.

A door: MLflow is imported inside the functions, as that costs seconds which ``producer --help``
need not pay.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

import yaml

from flavor.errors import InputError, TrackingError, is_unreachable
from flavor.params import check_params, overlay
from flavor.prompts import read_prompt
from flavor.redact import redact, redact_url
from flavor.spec import TEXT_ALIASES, ModelSpec, read_slots
from flavor.template import Syntax
from flavor.types import Json, Task

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

CONNECT_TIMEOUT_S = 5.0
_FORMS = (
    "models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID, runs:/RUN/PATH, "
    "prompts:/NAME@ALIAS or a folder"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Location:
    """Where a model is: ``uri`` for ever the same one, name and version if it is registered."""

    uri: str
    name: str | None = None
    version: str | None = None


def read_spec(uri: str, *, openai_model: str | None = None) -> ModelSpec:
    """What was logged at ``uri``. Blocks: asks MLflow.

    ``openai_model`` serves where a registered prompt names none.

    Raises:
        InputError: nothing usable is there; the text says what to do.
        TrackingError: MLflow's server does not answer.
    """
    with _translated(uri):
        if uri.startswith("prompts:"):
            return read_prompt(uri, openai_model=openai_model)
        return _read_model(uri, _locate(uri))


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Refuse at once when MLflow's server does not answer: its own client would try for minutes."""
    _check_server(uri)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # MLflow lets its database's errors through

    try:
        yield
    except MlflowException as error:
        reason = " ".join(redact(error.message).split())
        if is_unreachable(error):
            raise TrackingError(f"cannot read model {uri!r}: {reason}") from error
        raise InputError(f"cannot read model {uri!r}: {reason}; --model takes {_FORMS}") from error
    except (OSError, SQLAlchemyError, yaml.YAMLError) as error:
        reason = " ".join(redact(str(error)).split())
        kind = TrackingError if is_unreachable(error) else InputError
        raise kind(f"cannot read model {uri!r}: {reason}") from error


def _check_server(uri: str) -> None:
    if not uri.startswith(("models:", "runs:", "prompts:")):
        return
    import mlflow

    server = mlflow.get_registry_uri() if uri.startswith("models:") else mlflow.get_tracking_uri()
    parts = urlsplit(server)
    if parts.scheme not in {"http", "https"} or parts.scheme in getproxies():
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise TrackingError(
            f"cannot reach MLflow at {redact_url(server)}: {error}; check MLFLOW_TRACKING_URI"
        ) from error


def _locate(uri: str) -> _Location:
    scheme = urlsplit(uri).scheme
    if scheme == "models":
        return _locate_registered(uri)
    if scheme in {"", "file"}:
        path = Path(unquote(urlsplit(uri).path) if scheme else uri).expanduser().resolve()
        if not (path / "MLmodel").is_file():
            raise InputError(
                f"no model in {path}: it has no file 'MLmodel'; --model takes {_FORMS}"
            )
        return _Location(uri=str(path))
    return _Location(uri=uri)  # runs:/ names one model for ever; so do the stores' own schemes


def _locate_registered(uri: str) -> _Location:
    path = unquote(urlsplit(uri).path).strip("/")
    name, at, alias = path.rpartition("@")
    if at and "/" not in alias:
        return _registered(name, _version_of_alias(name, alias))
    name, _, version = path.partition("/")
    if not version and name.startswith("m-"):
        return _Location(uri=uri)
    if version.lower() == "latest":
        return _registered(name, _latest_version(name))
    if not version.isdigit():
        raise InputError(f"cannot read model {uri!r}: no version or alias; --model takes {_FORMS}")
    return _registered(name, version)


def _registered(name: str, version: str) -> _Location:
    return _Location(uri=f"models:/{name}/{version}", name=name, version=version)


def _version_of_alias(name: str, alias: str) -> str:
    from mlflow import MlflowClient

    return str(MlflowClient().get_model_version_by_alias(name, alias).version)


def _latest_version(name: str) -> str:
    """The highest number. Stages, of which MLflow's own ``latest`` is made, are deprecated."""
    from mlflow import MlflowClient

    quoted = name.replace("'", "''")
    versions = MlflowClient().search_model_versions(f"name='{quoted}'")
    if not versions:
        raise InputError(f"registered model {name!r} has no version")
    return str(max(int(version.version) for version in versions))


def _read_model(uri: str, location: _Location) -> ModelSpec:
    from mlflow.models import Model

    logged = Model.load(location.uri)
    if flavor := logged.flavors.get("openai"):
        return _openai_spec(uri, logged, location=location, flavor=flavor)
    if "python_function" in logged.flavors:
        return _pyfunc_spec(uri, logged, location=location)
    raise InputError(f"cannot run model {uri!r}: it has neither the openai nor the pyfunc flavor")


def _openai_spec(
    uri: str, logged: Model, *, location: _Location, flavor: Mapping[str, Json]
) -> ModelSpec:
    data = dict(_read_data(location.uri, str(flavor.get("data", "model.yaml"))))
    task = _task(uri, data.pop("task", None))
    openai_model = data.pop("model", None)
    if not isinstance(openai_model, str):
        raise InputError(f"cannot run model {uri!r}: it names no OpenAI model")
    template = data.pop(
        {Task.CHAT: "messages", Task.COMPLETIONS: "prompt"}.get(task, "input"), None
    )
    params = overlay(data, _param_defaults(logged.signature))
    try:
        check_params(task, params)
        slots = read_slots(
            task, template, syntax=Syntax.FORMAT, column=_only_column(logged.signature)
        )
    except InputError as error:
        raise InputError(f"cannot run model {uri!r}: {error}") from error
    return ModelSpec(
        uri=uri,
        resolved_uri=location.uri,
        model_id=logged.model_id,
        registered_name=location.name,
        registered_version=location.version,
        task=task,
        openai_model=openai_model,
        template=template,
        variables=slots.variables,
        aliases=slots.aliases,
        accepts_messages=slots.accepts_messages,
        params=params,
    )


def _pyfunc_spec(uri: str, logged: Model, *, location: _Location) -> ModelSpec:
    inputs = logged.signature.inputs if logged.signature else None
    variables: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = {}
    if inputs and inputs.has_input_names():
        variables = tuple(inputs.required_input_names())
        optional = tuple(inputs.optional_input_names())
    elif inputs and not inputs.is_tensor_spec() and len(inputs.inputs) == 1:
        variables, aliases = ("text",), {"text": TEXT_ALIASES}
    return ModelSpec(
        uri=uri,
        resolved_uri=location.uri,
        model_id=logged.model_id,
        registered_name=location.name,
        registered_version=location.version,
        task=Task.PYFUNC,
        variables=variables,
        aliases=aliases,
        optional=optional,
        takes_whole_rows=not (variables or optional),
        params=_param_defaults(logged.signature),
    )


def _read_data(model_uri: str, name: str) -> Mapping[str, Json]:
    """The flavor's own file. ``mlflow.openai.load_model`` would also import the model's code."""
    import mlflow.artifacts

    source = _artifact_location(model_uri)
    with TemporaryDirectory() as folder:
        file = mlflow.artifacts.download_artifacts(artifact_uri=f"{source}/{name}", dst_path=folder)
        data = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    if not isinstance(data, Mapping):
        raise InputError(f"cannot read model {model_uri!r}: its {name} is no mapping")
    return data


def _artifact_location(model_uri: str) -> str:
    """``models:/m-ID`` takes no path behind it (mlflow 3.17.2); where it is stored does."""
    from mlflow import MlflowClient

    name = model_uri.removeprefix("models:/")
    if name == model_uri or "/" in name:
        return model_uri
    return str(MlflowClient().get_logged_model(name).artifact_location)


def _task(uri: str, name: Json) -> Task:
    if name in {Task.CHAT, Task.COMPLETIONS, Task.EMBEDDINGS}:
        return Task(name)
    raise InputError(
        f"cannot run model {uri!r}: task {name!r} is not one of "
        f"{Task.CHAT}, {Task.COMPLETIONS}, {Task.EMBEDDINGS}"
    )


def _param_defaults(signature: ModelSignature | None) -> dict[str, Json]:
    if signature is None or signature.params is None:
        return {}
    return {param.name: _plain(param.default) for param in signature.params.params}


def _plain(value: Json) -> Json:
    """numpy's scalars and arrays, as MLflow keeps some defaults, are no JSON."""
    return value.tolist() if hasattr(value, "tolist") else value


def _only_column(signature: ModelSignature | None) -> str | None:
    inputs = signature.inputs if signature else None
    if inputs is None or not inputs.has_input_names():
        return None
    names = inputs.input_names()
    return str(names[0]) if len(names) == 1 else None
