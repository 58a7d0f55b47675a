"""The command line itself: fast to start, and short where something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from producer.cli import main
from producer.options import parse_params


def _fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *typed: str
) -> tuple[int, str]:
    """Exit status and stderr of a command that ends by itself."""
    monkeypatch.setattr("sys.argv", ["producer", *typed])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["sumbit"], "error: no command 'sumbit'; did you mean 'submit'?; see producer --help"),
        (["zzz"], "error: No such command 'zzz'; see producer --help"),
        (["status"], "error: Missing argument 'JOB'; see producer status --help"),
    ],
)
def test_wrong_usage_is_one_line_with_the_remedy(
    typed: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _fails(monkeypatch, capsys, *typed) == (2, said + "\n")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://127.0.0.1:1", "MLflow cannot be reached: [Errno 111] Connection refused"),
        ("gopher://there", "got unsupported URI 'gopher://there'"),
    ],
)
def test_an_mlflow_that_cannot_be_used_is_one_line_with_the_remedy(uri: str, said: str) -> None:
    """In a process of its own: MLflow remembers a tracking URI for the rest of its process."""
    done = subprocess.run(
        [sys.executable, "-m", "producer", "jobs"],
        check=False, capture_output=True, text=True,
        env={**os.environ, "REDIS_URL": "redis://127.0.0.1:1/0", "MLFLOW_TRACKING_URI": uri},
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert done.stderr.endswith("; start MLflow or set MLFLOW_TRACKING_URI\n")


def _run(*args: str, **environment: str) -> tuple[str, float]:
    """The best of three runs: a loaded machine says little about the command."""
    times = []
    for _ in range(3):
        started_s = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "producer", *args],
            check=True, capture_output=True, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        times.append(time.monotonic() - started_s)
    return done.stdout, min(times)


def test_help_comes_in_half_a_second() -> None:
    shown, duration_s = _run("--help")

    assert "Commands:" in shown
    assert duration_s < 0.5


def test_a_shell_completes_commands_in_half_a_second() -> None:
    shown, duration_s = _run(
        _PRODUCER_COMPLETE="bash_complete", COMP_WORDS="producer re", COMP_CWORD="1"
    )

    assert shown.split() == ["plain,resume", "plain,retry", "plain,results"]
    assert duration_s < 0.5


def test_a_param_that_is_json_is_that_json_and_anything_else_its_text() -> None:
    """NaN was sent as null, which is the API's default and not what was asked for."""
    assert parse_params(["n=1", "stop=[1]", "user=me", "seed=null", "temperature=NaN"]) == {
        "n": 1, "stop": [1], "user": "me", "seed": None, "temperature": "NaN",
    }  # fmt: skip
