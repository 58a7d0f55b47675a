"""``log_model``, ``save_model`` and ``load_model`` with the signatures of ``mlflow.openai``'s.

MLflow deprecates its own (since 3.8). These write the same files through what MLflow keeps public
(``mlflow.models.Model``, ``mlflow.pyfunc.save_model``), so that models can still be logged when its
own are gone. The loader named in them stays ``mlflow.openai``: loading is not deprecated, and a
model must be readable where this package is not installed.

Two deviations: a template or parameter that cannot work is refused here, not at the first row; and
default requirements are named, not found by loading the model in another process, which takes
seconds to find the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from flavor.errors import InputError
from flavor.params import check_params
from flavor.spec import compile_template
from flavor.template import Syntax
from flavor.types import Json, Task

if TYPE_CHECKING:
    from mlflow.entities.model_registry import PromptVersion
    from mlflow.models import Model, ModelInputExample, ModelSignature
    from mlflow.models.model import ModelInfo

Foreign: TypeAlias = Any
"""The SDK's objects, files, lists, mappings: MLflow says what it takes, and takes it from us."""

MODEL_FILE = "model.yaml"  # source: mlflow 3.17.2, openai/model.py, MODEL_FILENAME
LOADER = "mlflow.openai"
# Source: mlflow 3.17.2, tracking/_model_registry/__init__.py, DEFAULT_AWAIT_MAX_SLEEP_SECONDS.
AWAIT_REGISTRATION_S = 300

_TASKS = (Task.CHAT, Task.COMPLETIONS, Task.EMBEDDINGS)


def log_model(  # noqa: PLR0913, PLR0917 - mlflow.openai's own signature
    model: str,
    task: Foreign,
    artifact_path: str | None = None,
    conda_env: Foreign = None,
    code_paths: list[str] | None = None,
    registered_model_name: str | None = None,
    signature: ModelSignature | None = None,
    input_example: ModelInputExample | None = None,
    await_registration_for: int | None = AWAIT_REGISTRATION_S,
    pip_requirements: Foreign = None,
    extra_pip_requirements: Foreign = None,
    metadata: dict[str, Any] | None = None,
    prompts: list[str | PromptVersion] | None = None,
    name: str | None = None,
    params: dict[str, Any] | None = None,
    tags: dict[str, Any] | None = None,
    model_type: str | None = None,
    step: int = 0,
    model_id: str | None = None,
    **kwargs: Json,
) -> ModelInfo:
    """Log an OpenAI model, as ``mlflow.openai.log_model`` does; raises as ``save_model``."""
    from mlflow.models import Model  # costs seconds, which `import flavor` need not pay

    info: ModelInfo = Model.log(
        artifact_path=artifact_path,
        name=name,
        # The name is kept in the logged model, and is what MLflow's own would keep.
        flavor=SimpleNamespace(__name__=LOADER, save_model=save_model),
        registered_model_name=registered_model_name,
        model=model,
        task=task,
        conda_env=conda_env,
        code_paths=code_paths,
        signature=signature,
        input_example=input_example,
        await_registration_for=await_registration_for,
        pip_requirements=pip_requirements,
        extra_pip_requirements=extra_pip_requirements,
        metadata=metadata,
        prompts=prompts,
        params=params,
        tags=tags,
        model_type=model_type,
        step=step,
        model_id=model_id,
        **kwargs,
    )
    return info


def save_model(  # noqa: PLR0913, PLR0917 - mlflow.openai's own signature
    model: str,
    task: Foreign,
    path: str | Path,
    conda_env: Foreign = None,
    code_paths: list[str] | None = None,
    mlflow_model: Model | None = None,
    signature: ModelSignature | None = None,
    input_example: ModelInputExample | None = None,
    pip_requirements: Foreign = None,
    extra_pip_requirements: Foreign = None,
    metadata: dict[str, Any] | None = None,
    **kwargs: Json,
) -> None:
    """Save an OpenAI model to a folder, as ``mlflow.openai.save_model`` does.

    Raises:
        InputError: its task, template or parameters cannot work.
    """
    import mlflow.pyfunc  # costs seconds, which `import flavor` need not pay
    from mlflow.models import Model

    task = _task_of(task)
    _check(model, task, kwargs=kwargs, signature=signature)
    mlflow_model = mlflow_model or Model()
    # Set here: as an argument below it would draw MLflow's advice on examples, meant for code
    # models.
    mlflow_model.signature = signature or _signature(task, kwargs)
    if conda_env is None and pip_requirements is None:
        pip_requirements, extra_pip_requirements = _requirements(extra_pip_requirements), None
    with TemporaryDirectory() as folder:
        data = Path(folder, MODEL_FILE)
        data.write_text(yaml.safe_dump({"model": model, "task": str(task), **kwargs}))
        mlflow.pyfunc.save_model(
            path=str(Path(path).absolute()),
            loader_module=LOADER,
            data_path=str(data),
            code_paths=code_paths,
            conda_env=conda_env,
            mlflow_model=mlflow_model,
            input_example=input_example,
            pip_requirements=pip_requirements,
            extra_pip_requirements=extra_pip_requirements,
            metadata=metadata,
        )
    _add_openai_flavor(mlflow_model, Path(path))


def load_model(model_uri: str, dst_path: str | None = None) -> dict[str, Json]:
    """What was logged, as a dictionary: model, task, messages or prompt, and parameters.

    Raises:
        InputError: the model there has not the openai flavor.
    """
    import mlflow.artifacts  # costs seconds, which `import flavor` need not pay
    from mlflow.models import Model

    folder = mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=dst_path)
    flavor = Model.load(folder).flavors.get("openai")
    if flavor is None:
        raise InputError(f"model {model_uri!r} was not logged with the openai flavor")
    data: dict[str, Json] = yaml.safe_load(
        Path(folder, flavor.get("data", MODEL_FILE)).read_text(encoding="utf-8")
    )
    return data


def _task_of(task: Foreign) -> Task:
    """A task by name or by the SDK's object: ``openai.chat.completions``, its class, its verb."""
    if isinstance(task, str):
        if task in _TASKS:
            return Task(task)
        raise InputError(f"task {task!r} is not one of {', '.join(_TASKS)}")
    from openai import resources  # costs a second, which naming a task need not pay

    verbs = {
        Task.CHAT: (resources.chat.Completions, resources.chat.AsyncCompletions),
        Task.COMPLETIONS: (resources.Completions, resources.AsyncCompletions),
        Task.EMBEDDINGS: (resources.Embeddings, resources.AsyncEmbeddings),
    }
    owner = getattr(task, "__self__", task)
    for known, classes in verbs.items():
        if owner in classes or isinstance(owner, classes):
            return known
    raise InputError(f"task {task!r} is not one of {', '.join(_TASKS)}")


def _check(
    model: str, task: Task, *, kwargs: Mapping[str, Json], signature: ModelSignature | None
) -> None:
    if not isinstance(model, str):
        raise InputError(f"model must be the name of an OpenAI model, not {type(model).__name__}")
    template = _template(task, kwargs)
    if task is not Task.EMBEDDINGS:
        compile_template(task, template, syntax=Syntax.FORMAT)
    params = {key: value for key, value in kwargs.items() if key not in {"messages", "prompt"}}
    check_params(task, params)
    defaults = signature.params.params if signature and signature.params else []
    check_params(task, {param.name: param.default for param in defaults})
    if twice := {param.name for param in defaults} & kwargs.keys():
        # MLflow refuses this as well, at the first row if not when saving.
        raise InputError(f"{sorted(twice)} stand both in the signature and in the arguments")


def _template(task: Task, kwargs: Mapping[str, Json]) -> Json:
    return kwargs.get("messages" if task is Task.CHAT else "prompt")


def _signature(task: Task, kwargs: Mapping[str, Json]) -> ModelSignature:
    """MLflow's: a nameless text, or named ones where the template has several variables."""
    import numpy as np  # comes with MLflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    if task is Task.EMBEDDINGS:
        outputs = Schema([TensorSpec(type=np.dtype("float64"), shape=(-1,))])
        return ModelSignature(inputs=Schema([ColSpec(type="string")]), outputs=outputs)
    names: Sequence[str | None]
    names = compile_template(task, _template(task, kwargs), syntax=Syntax.FORMAT).variables
    if len(names) == 1:
        names = [None]
    inputs = Schema([ColSpec(name=name, type="string") for name in names])
    return ModelSignature(inputs=inputs, outputs=Schema([ColSpec(type="string")]))


def _requirements(extra: Foreign) -> list[str]:
    """What loading and predicting with the model needs. ``extra`` is a list, or a file of one."""
    needed = [f"{name}=={version(name)}" for name in ("mlflow", "openai", "tenacity")]
    return [*needed, *([f"-r {extra}"] if isinstance(extra, str) else extra or ())]


def _add_openai_flavor(mlflow_model: Model, path: Path) -> None:
    """Put the data where MLflow's loader looks for it, and name the flavor."""
    pyfunc = mlflow_model.flavors["python_function"]
    code = pyfunc.get("code")
    if code is None:
        pyfunc.pop("code", None)
    (path / "data" / MODEL_FILE).rename(path / MODEL_FILE)
    (path / "data").rmdir()
    pyfunc["data"] = MODEL_FILE
    mlflow_model.add_flavor("openai", openai_version=version("openai"), data=MODEL_FILE, code=code)
    mlflow_model.save(str(path / "MLmodel"))
