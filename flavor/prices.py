"""What tokens cost: MLflow's own price catalogue, or what the user says.

The catalogue is read as a file, without importing MLflow and without the network; an unknown model
has no price, which is not the same as a price of 0.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import url2pathname, urlopen

from flavor.errors import InputError
from flavor.types import Json, Usage

MILLION = 1_000_000
FETCH_TIMEOUT_S = 3.0

_PRICE_FORM = (
    "a price is INPUT/OUTPUT or INPUT/OUTPUT/CACHED in USD per million tokens, such as 0.15/0.6"
)
_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD per token. ``cached_usd_per_token`` is for prompt tokens read from the API's cache."""

    input_usd_per_token: float
    output_usd_per_token: float
    cached_usd_per_token: float | None = None


def cost_usd(price: Price | None, usage: Usage | None) -> float | None:
    """What ``usage`` costs; None where the price or the usage is unknown."""
    if price is None or usage is None:
        return None
    cached_rate = price.cached_usd_per_token
    if cached_rate is None:
        cached_rate = price.input_usd_per_token
    return (
        max(0, usage.prompt_tokens - usage.cached_tokens) * price.input_usd_per_token
        + usage.cached_tokens * cached_rate
        + usage.completion_tokens * price.output_usd_per_token
    )


def find_price(openai_model: str, provider: str = "openai") -> Price | None:
    """The catalogue's price of a model. ``provider`` is a file of it: ``openai`` or ``azure``.

    Reads the catalogue at ``MLFLOW_MODEL_CATALOG_URI`` if that is set, as MLflow does, and the one
    that MLflow bundles otherwise. Waits at most ``FETCH_TIMEOUT_S`` for a catalogue on the network.
    """
    models = _read_catalogue(provider, os.environ.get("MLFLOW_MODEL_CATALOG_URI", ""))
    for name in _catalogue_names(openai_model):
        if isinstance(entry := models.get(name), Mapping):
            return _read_price(entry.get("pricing"))
    return None


def parse_price(text: str) -> Price:
    """Read ``0.15/0.6`` or ``0.15/0.6/0.075``: USD per million input, output, cached tokens.

    Raises:
        InputError: it is neither.
    """
    try:
        rates = [float(part) / MILLION for part in text.split("/")]
    except ValueError as error:
        raise InputError(f"price {text!r}: {_PRICE_FORM}") from error
    if len(rates) not in {2, 3} or not all(0 <= rate < 1 for rate in rates):
        raise InputError(f"price {text!r}: {_PRICE_FORM}")
    return Price(
        input_usd_per_token=rates[0],
        output_usd_per_token=rates[1],
        cached_usd_per_token=rates[2] if len(rates) == 3 else None,
    )


def _catalogue_names(openai_model: str) -> list[str]:
    """Names to look for, the most exact first.

    A provider's prefix goes as in MLflow (utils/providers.py, _lookup_model_info); a fine-tuned
    model (``ft:base:org:name:id``) stands in the catalogue as ``ft:base``; a dated snapshot costs
    what its model costs.
    """
    name = openai_model.split("/", 1)[-1]
    if name.startswith("ft:"):
        return [":".join(name.split(":")[:2])]
    return [openai_model, name, _DATE.sub("", name)]


@lru_cache(maxsize=16)
def _read_catalogue(provider: str, uri: str) -> Mapping[str, Json]:
    configured = _fetch_models(f"{uri.rstrip('/')}/{provider}.json") if uri else {}
    return configured or _read_models(_bundled_catalogue(provider))


def _bundled_catalogue(provider: str) -> Path:
    """Where MLflow keeps it. ``find_spec`` does not import MLflow, which would cost seconds."""
    spec = find_spec("mlflow")
    folders = (spec.submodule_search_locations or []) if spec else []
    return Path(*folders[:1], "utils", "model_catalog", f"{provider}.json")


def _fetch_models(url: str) -> Mapping[str, Json]:
    parts = urlsplit(url)
    if parts.scheme == "file":
        return _read_models(Path(url2pathname(parts.path)))
    if parts.scheme not in {"http", "https"}:
        raise InputError("MLFLOW_MODEL_CATALOG_URI must start with https://, http:// or file://")
    try:
        with urlopen(url, timeout=FETCH_TIMEOUT_S) as response:  # noqa: S310 - scheme checked above
            return _models_of(response.read())
    except (URLError, OSError):
        return {}  # no network is the normal case here: the bundled catalogue answers


def _read_models(path: Path) -> Mapping[str, Json]:
    try:
        return _models_of(path.read_bytes())
    except OSError:
        return {}  # a catalogue that is not there knows no price


def _models_of(raw: bytes) -> Mapping[str, Json]:
    try:
        catalogue = json.loads(raw)
    except ValueError:
        return {}
    models = catalogue.get("models") if isinstance(catalogue, Mapping) else None
    return models if isinstance(models, Mapping) else {}


def _read_price(pricing: Json) -> Price | None:
    if not isinstance(pricing, Mapping):
        return None
    rates = [
        pricing.get(f"{kind}_per_million_tokens") for kind in ("input", "output", "cache_read")
    ]
    if not isinstance(rates[0], (int, float)) or not isinstance(rates[1], (int, float)):
        return None
    return Price(
        input_usd_per_token=rates[0] / MILLION,
        output_usd_per_token=rates[1] / MILLION,
        cached_usd_per_token=rates[2] / MILLION if isinstance(rates[2], (int, float)) else None,
    )
