"""An MLflow server that is away is told from a model that is not there."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import mlflow
import pytest

from flavor import loading
from flavor.errors import InputError, TrackingError, is_unreachable
from flavor.loading import read_spec
from flavor.model import ModelSpec
from flavor.pyfunc import load_pyfunc
from flavor.types import Task


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a server that nobody runs, set as MLflow's."""
    with socket.socket() as taken:  # bound, and never listening
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(uri)
        yield uri
        mlflow.set_tracking_uri(before)


@pytest.mark.parametrize("uri", ["models:/m/1", "runs:/r/m", "prompts:/p@a"])
def test_a_server_that_is_away_is_no_fault_of_the_input(away: str, uri: str) -> None:
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI") as caught:
        read_spec(uri)

    assert away in str(caught.value)


@pytest.mark.usefixtures("away")
def test_a_server_that_goes_away_meanwhile_is_no_fault_of_the_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "_check_server", lambda _: None)

    with pytest.raises(TrackingError, match="models:/m/1"):
        read_spec("models:/m/1")


@pytest.mark.usefixtures("away")
def test_a_pyfunc_whose_server_is_away_can_be_loaded_later() -> None:
    spec = ModelSpec(uri="models:/m/1", resolved_uri="models:/m/1", task=Task.PYFUNC)

    with pytest.raises(TrackingError, match="models:/m/1"):
        load_pyfunc(spec, {})


def test_a_model_that_is_not_there_is_the_inputs_fault(tmp_path: object) -> None:
    spec = ModelSpec(uri=f"{tmp_path}/m", resolved_uri=f"{tmp_path}/m", task=Task.PYFUNC)

    with pytest.raises(InputError, match="cannot load"):
        load_pyfunc(spec, {})
    with pytest.raises(InputError, match="MLmodel"):
        read_spec(f"{tmp_path}/m")
    assert not is_unreachable(FileNotFoundError("m"))
