"""What the environment says, read once. Only the entry points call ``read_settings``."""

from __future__ import annotations

import difflib
import os
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from flavor.errors import InputError

_PREFIX = "BATCH_"


class Settings(BaseSettings):
    """Every setting, with its default. The ecosystem's own names where there are any."""

    model_config = SettingsConfigDict(frozen=True, env_prefix=_PREFIX, extra="forbid")

    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"), validation_alias="REDIS_URL"
    )
    tracking_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI")

    concurrency: int = Field(default=256, ge=1, le=4096)
    """Requests in flight per process."""
    open_batches: int = Field(default=64, ge=1, le=512)
    """Batches that a process may have open; a slow row holds its batch open, not the others."""
    lease_s: float = Field(default=30.0, ge=2)
    max_attempts: int = Field(default=6, ge=1)
    max_deliveries: int = Field(default=5, ge=1)
    row_deadline_s: float = Field(default=3600.0, gt=0)
    """From a row's first attempt to its outcome, waiting included."""
    request_timeout_s: float = Field(default=600.0, gt=0)
    """Of one HTTP call. Source of 600: openai 3.54.0, _constants.py, DEFAULT_TIMEOUT."""
    models: int = Field(default=4, ge=1)
    """Models that a process keeps loaded."""
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)
    max_concurrency: int | None = Field(default=None, ge=1)
    """Requests in flight to one endpoint, over all workers."""
    burst_s: float = Field(default=0.1, ge=0, le=60)
    """Seconds of a limit's allowance that may be used at once."""
    log_format: Literal["text", "json"] = "text"
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Where Prometheus may ask this process; without one, nothing listens."""
    metrics_host: str = "127.0.0.1"
    parent_pid: int | None = None
    """End when this process ends: set for workers that ``producer run`` starts."""

    @property
    def has_redis(self) -> bool:
        """Whether the environment names a Redis; without one, local commands bring their own."""
        return "redis_url" in self.model_fields_set


def read_settings() -> Settings:
    """Read the environment.

    Raises:
        InputError: a value is out of range, or a ``BATCH_*`` name is not ours (a typing error
            there would otherwise run with the default, silently).
    """
    _refuse_unknown_names()
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "?"
        shown = name if name.isupper() else _PREFIX + name.upper()
        raise InputError(f"{shown}: {first['msg'].lower()}") from None


def _refuse_unknown_names() -> None:
    known = {
        _PREFIX + name.upper()
        for name, f in Settings.model_fields.items()
        if not f.validation_alias
    }
    for name in os.environ:
        if name.startswith(_PREFIX) and name not in known:
            # Without the prefix, which all share: it would make any two names look alike.
            names = {ours.removeprefix(_PREFIX): ours for ours in known}
            nearest = difflib.get_close_matches(name.removeprefix(_PREFIX), names, n=1)
            hint = (
                f"did you mean {names[nearest[0]]}?"
                if nearest
                else f"known are {', '.join(sorted(known))}"
            )
            raise InputError(f"{name} is no setting of ours; {hint}")
