"""Vectors for texts: the same for the same text, alike for texts that share words.

Each word adds to a few dimensions, the text itself a little noise to all of them, so that no
two texts have the same vector. Two fixed random tables per model are all that is kept. (To add
a whole random vector per word looked the same and took four times as long.)
"""

from functools import lru_cache
from typing import TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pybase64

from producer.simulator.draws import draw_int
from producer.simulator.errors import ApiError, missing
from producer.simulator.requests import Body, Endpoint, ModelRequest, read_texts

MAX_INPUTS = 2048  # Source: API reference, embeddings, input
MAX_INPUT_TOKENS = 8192  # the same
MAX_REQUEST_TOKENS = 300_000  # the same

_WORDS = 4096  # told apart; more share dimensions
_DIMENSIONS_PER_WORD = 16
_READ_WORDS = 512
_NOISES = 256
_NOISE = 0.02  # a word's weight in a dimension is 1
_DIMENSIONS = {"text-embedding-3-large": 3072}
_DEFAULT_DIMENSIONS = 1536

Vector: TypeAlias = npt.NDArray[np.float32]
Encoded: TypeAlias = str | Vector
"""A vector as the wire has it: its bytes in base64, or an array."""


class Vectors:
    """The last vectors that were made, so that a text that comes again costs next to nothing."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], Encoded] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, text: str, *, key: int, request: ModelRequest, seed: int, most: int) -> Encoded:
        """A text's vector, which is kept beside at most ``most`` others."""
        name = (key, request.openai_model, request.dimensions, request.is_base64, seed)
        found = self._kept.get(name)
        if found is None:
            found = embedding(text, key=key, request=request, seed=seed)
            while len(self._kept) >= max(most, 1):
                del self._kept[next(iter(self._kept))]
            self._kept[name] = found
        return found


def read_embedding(body: Body, *, openai_model: str) -> ModelRequest:
    """A request for embeddings, checked as OpenAI checks it: one bad input refuses them all."""
    if body.get("input") is None:
        raise missing("input")
    texts, tokens = read_texts(body["input"], name="input")
    if "" in texts:
        raise refused_input()
    _check_sizes(tokens)
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        message = f"Invalid value: '{encoding}'. Supported values are: 'float' and 'base64'."
        raise ApiError(message, param="encoding_format", code="invalid_value")
    return ModelRequest(
        endpoint=Endpoint.EMBEDDINGS,
        openai_model=openai_model,
        texts=texts,
        prompt_tokens=sum(tokens),
        dimensions=_read_dimensions(body, openai_model=openai_model),
        is_base64=encoding == "base64",
    )


def refused_input() -> ApiError:
    """The refusal of a whole request for one of its inputs; OpenAI does not say for which."""
    return ApiError("'$.input' is invalid. Please check the API reference.")


def full_dimensions(openai_model: str) -> int:
    """The length of a model's vectors."""
    return _DIMENSIONS.get(openai_model, _DEFAULT_DIMENSIONS)


def embedding(text: str, *, key: int, request: ModelRequest, seed: int) -> Encoded:
    """A text's vector of length 1."""
    full = full_dimensions(request.openai_model)
    places, noises = _tables(full, seed=seed)
    own = draw_int("embedding", seed=seed, openai_model=request.openai_model, key=key)
    vector = noises[own % _NOISES].copy()
    words = [crc32(word.encode()) % _WORDS for word in text.lower().split(None, _READ_WORDS)]
    vector[places[words].ravel()] += 1
    # Texts of the same words may share their noise too: this number tells them apart.
    vector[own % 64] += (own >> 32) / 2**32
    return _encoded(vector[: request.dimensions or full], is_base64=request.is_base64)


def _encoded(vector: Vector, *, is_base64: bool) -> Encoded:
    unit: Vector = (vector / np.sqrt(vector @ vector)).astype(np.float32, copy=False)
    return pybase64.b64encode_as_string(unit.data) if is_base64 else unit


@lru_cache(maxsize=4)
def _tables(dimensions: int, *, seed: int) -> tuple[npt.NDArray[np.int64], Vector]:
    """The dimensions that each word adds to, and the noises."""
    generator = np.random.default_rng([seed & 0xFFFFFFFF, dimensions])
    places = generator.integers(0, dimensions, (_WORDS, _DIMENSIONS_PER_WORD))
    noises = generator.standard_normal((_NOISES, dimensions), dtype=np.float32) * _NOISE
    return places, noises.astype("<f4")


def _check_sizes(tokens: tuple[int, ...]) -> None:
    if len(tokens) > MAX_INPUTS:
        message = (
            f"Invalid 'input': array too long. Expected an array with maximum length {MAX_INPUTS},"
            f" but got an array with length {len(tokens)} instead."
        )
        raise ApiError(message, param="input", code="array_above_max_length")
    longest = max(tokens)
    if longest > MAX_INPUT_TOKENS:
        message = (
            f"This model's maximum context length is {MAX_INPUT_TOKENS} tokens, however you"
            f" requested {longest} tokens ({longest} in your prompt; 0 for the completion)."
            " Please reduce your prompt; or completion length."
        )
        raise ApiError(message)
    total = sum(tokens)
    if total > MAX_REQUEST_TOKENS:
        kind = "max_tokens_per_request"
        message = f"Requested {total} tokens, max {MAX_REQUEST_TOKENS} tokens per request"
        raise ApiError(message, kind=kind, code=kind)


def _read_dimensions(body: Body, *, openai_model: str) -> int | None:
    dimensions = body.get("dimensions")
    if dimensions is None:
        return None
    if openai_model == "text-embedding-ada-002":
        raise ApiError("This model does not support specifying dimensions.", param="dimensions")
    most = full_dimensions(openai_model)
    if type(dimensions) is not int or not 1 <= dimensions <= most:
        message = f"Invalid value for 'dimensions': expected an integer from 1 to {most}."
        raise ApiError(message, param="dimensions", code="invalid_value")
    return dimensions
