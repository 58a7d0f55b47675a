"""The environment: what is read, and what is refused with the remedy."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from flavor.errors import InputError
from worker.settings import read_settings


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = read_settings()

    assert settings.redis_url.get_secret_value() == "redis://127.0.0.1:6379/0"
    assert settings.tracking_uri is None
    assert (settings.lease_s, settings.max_attempts, settings.max_deliveries) == (30, 6, 5)
    assert not settings.has_redis


def test_the_ecosystems_own_names_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:secret@host:1/2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")

    settings = read_settings()

    assert settings.has_redis
    assert settings.redis_url.get_secret_value() == "redis://:secret@host:1/2"
    assert settings.tracking_uri == "http://mlflow:5000"
    assert "secret" not in repr(settings)


def test_our_own_names_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_LEASE_S", "5")
    monkeypatch.setenv("BATCH_LOG_FORMAT", "json")
    monkeypatch.setenv("BATCH_PARENT_PID", "42")

    settings = read_settings()

    assert (settings.lease_s, settings.log_format, settings.parent_pid) == (5.0, "json", 42)


def test_a_misspelt_name_is_refused_with_the_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_CONCURENCY", "5")

    with pytest.raises(InputError, match=r"BATCH_CONCURENCY .* did you mean BATCH_CONCURRENCY\?"):
        read_settings()


def test_a_name_like_none_of_ours_is_refused_with_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BATCH_FAVOURITE_COLOUR", "5")

    with pytest.raises(InputError, match=r"known are .*BATCH_LEASE_S, .*BATCH_TPM"):
        read_settings()


def test_the_ecosystems_names_are_no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """``BATCH_REDIS_URL`` would look as if it were read."""
    monkeypatch.setenv("BATCH_REDIS_URL", "redis://elsewhere")

    with pytest.raises(InputError, match="BATCH_REDIS_URL"):
        read_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BATCH_CONCURRENCY", "0"),
        ("BATCH_CONCURRENCY", "many"),
        ("BATCH_LEASE_S", "1"),
        ("BATCH_RPM", "-5"),
        ("BATCH_LOG_FORMAT", "xml"),
        ("BATCH_ROW_DEADLINE_S", "0"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(InputError, match=f"^{name}: ") as caught:
        read_settings()

    assert "\n" not in str(caught.value)


def test_settings_do_not_change() -> None:
    settings = read_settings()

    with pytest.raises(ValidationError):
        settings.lease_s = 1  # type: ignore[misc]
