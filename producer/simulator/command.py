"""``producer simulate``: the simulated API alone, from a shell.

The options are the fields of ``SimulatorSettings``; a second name stands beside those whose
unit a shell's user need not type.
"""

import asyncio
import gc
import importlib
import ipaddress
import json
import logging
import os
import resource
import signal
from collections.abc import Callable, Coroutine
from typing import Any, get_args

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from producer.simulator.server import serve
from producer.simulator.settings import SimulatorSettings

MAX_OPEN_FILES = 65_536

_SHORT_NAMES = {
    "latency_s": ("--latency",),
    "throttle_retry_after_s": ("--throttle-retry-after",),
    "reset_is_paid": ("--reset-after/--reset-before",),
}


def _settings_options(command: Callable[..., None]) -> Callable[..., None]:
    for name, field in reversed(SimulatorSettings.model_fields.items()):
        command = _option(name, field=field)(command)
    return command


def _option(name: str, *, field: FieldInfo) -> Callable[..., Any]:
    dashed = name.replace("_", "-")
    kinds = get_args(field.annotation) or (field.annotation,)
    names = (name, *_SHORT_NAMES.get(name, ()))
    if kinds[0] is bool:
        names = names if len(names) > 1 else (name, f"--{dashed}/--no-{dashed}")
        return click.option(
            *names, default=field.default, show_default=True, help=field.description
        )
    is_list = isinstance(field.default, tuple)
    return click.option(
        *names,
        f"--{dashed}",
        type=str if is_list else kinds[0],
        default=None if is_list else field.default,
        show_default=field.default is not None and not is_list,
        help=field.description,
    )


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, show_default=True, help="Port to listen on; 0: a free one.")
@click.option("--allow-remote", is_flag=True, help="Accept a host that others can reach.")
@_settings_options
def simulate(*, host: str, port: int, allow_remote: bool, **options: Any) -> None:  # noqa: ANN401 - one per field of the settings
    """Serve OpenAI's API with made-up answers: no model, no cost, no network.

    Prints one line of JSON with its base_url and pid when it is ready.
    """
    if not (allow_remote or _is_loopback(host)):
        raise click.UsageError(f"{host} can be reached by others: say --allow-remote to allow it")
    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = SimulatorSettings.model_validate(given)
    except ValidationError as error:
        raise click.UsageError(_one_line(error)) from error
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    _prepare_process()
    try:
        _runner()(_serve_until_told(settings, host=host, port=port))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error}") from error


async def _serve_until_told(settings: SimulatorSettings, *, host: str, port: int) -> None:
    serving = asyncio.ensure_future(serve(settings, host=host, port=port, on_ready=_announce))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    # Not awaited bare: only our own cancellation is a good end, an error must come out.
    await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()


def _announce(base_url: str) -> None:
    click.echo(
        f"This is a SIMULATION of OpenAI's API, with no model behind it: {base_url}", err=True
    )
    click.echo(json.dumps({"base_url": base_url, "pid": os.getpid()}))


def _prepare_process() -> None:
    """Allow as many connections as the system does, and spare the collector our modules."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS names no limit here and then refuses to set none.
    wanted = MAX_OPEN_FILES if most == resource.RLIM_INFINITY else min(most, MAX_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    gc.freeze()


def _runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    """uvloop's, which serves twice as many requests, where it is installed."""
    try:
        run: Callable[[Coroutine[Any, Any, None]], None] = importlib.import_module("uvloop").run
    except ImportError:
        return asyncio.run
    return run


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _one_line(error: ValidationError) -> str:
    return "; ".join(
        ": ".join([*map(str, detail["loc"]), detail["msg"]]) for detail in error.errors()
    )
