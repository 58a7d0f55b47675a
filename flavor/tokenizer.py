"""Counting a text's tokens before it is sent: exactly where tiktoken can, else by its characters.

For estimates, not for sending: ``flavor.tokens`` is rougher and many times faster. Nothing is ever
downloaded. tiktoken fetches an encoding that it does not have, so it is asked only for those whose
file lies in its cache and is whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

CL100K, O200K = "cl100k_base", "o200k_base"

# Source: tiktoken 0.14.0, tiktoken_ext/openai_public.py.
_SHA256 = {
    CL100K: "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    O200K: "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"

# Source: tiktoken 0.14.0, model.py. Whatever came after GPT-4 has the newer encoding.
_CL100K_MODEL = re.compile(
    r"gpt-4(-.*)?|gpt-3\.5.*|gpt-35.*|text-embedding-.*|davinci-002|babbage-002"
)

BY_CHARACTERS_ERROR = 0.15
"""By how much a count by characters may be off over a whole file, either way.

Measured with both encodings on 3,708 product reviews, Python, JSON, and prose in 16 languages:
within 15 %, and for the languages of Western Europe and East Asia mostly within 10 %; with
cl100k_base, Persian is counted 31 % too low.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """A way to count a text's tokens. ``name`` is for people; ``error`` a share, either way."""

    name: str
    count: Callable[[str], int]
    error: float


def encoding_of(openai_model: str) -> str:
    """The name of the encoding that a model reads; the newest one's for a model nobody knows."""
    name = openai_model.rpartition("/")[2].removeprefix("ft:").partition(":")[0]
    return CL100K if _CL100K_MODEL.fullmatch(name) else O200K


def exact_tokenizer(encoding: str) -> Tokenizer | None:
    """tiktoken's, where it is installed and has the encoding's file; None elsewhere.

    Takes about half a second the first time. Needs no network and never asks for it.
    """
    if find_spec("tiktoken") is None or not _has_file(encoding):
        return None
    import tiktoken  # optional

    encode = tiktoken.get_encoding(encoding).encode_ordinary
    return Tokenizer(
        name=f"tiktoken, {encoding}", count=lambda text: len(encode(_sound(text))), error=0.0
    )


def tokenizer_by_characters(encoding: str) -> Tokenizer:
    """An estimate by the words, digits, signs and scripts of a text, fitted to an encoding."""
    rates = tuple(zip(_KINDS, _RATES[encoding], strict=True))

    def count(text: str) -> int:
        found = sum(rate * len(kind.findall(text)) for kind, rate in rates)
        return max(1, round(found)) if text else 0

    return Tokenizer(name="characters", count=count, error=BY_CHARACTERS_ERROR)


def _has_file(encoding: str) -> bool:
    """Whether tiktoken will find the encoding's file and accept it.

    Source of the place: tiktoken 0.14.0, load.py, read_file_cached. A file whose hash is wrong is
    fetched anew there, so the hash is checked here.
    """
    given = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if given == "":  # tiktoken's way of saying: no cache
        return False
    folder = Path(given) if given else Path(tempfile.gettempdir(), "data-gym-cache")
    url = _URL.format(encoding)
    try:
        content = (
            folder / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
        ).read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content).hexdigest() == _SHA256[encoding]


def _sound(text: str) -> str:
    """The text with lone surrogates replaced: tiktoken takes none."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


_KINDS = (
    re.compile(r"[A-Za-z\u00c0-\u024f]+"),  # words in Latin letters
    re.compile(r"[A-Za-z\u00c0-\u024f]{4}"),  # and each four letters of theirs
    re.compile(r"[\u00c0-\u024f]"),  # letters with accents
    re.compile(r"\d{1,3}"),
    re.compile(r"[^\w\s]+"),
    re.compile(r"\n\s*| {2,}"),
    re.compile(r"[\u0250-\u08ff]"),  # Greek, Cyrillic, Hebrew, Arabic and their like
    re.compile(r"[\u0900-\u2dff]"),  # of India and its neighbours
    re.compile(r"[\u2e80-\U0010ffff]"),  # of East Asia; and emoji
)
# Tokens per match of each kind: non-negative least squares of relative errors, on 60 texts of each
# of the sorts that BY_CHARACTERS_ERROR names.
_RATES = {
    O200K: (0.76, 0.40, 0.92, 1.81, 0.74, 1.42, 0.29, 0.13, 0.68),
    CL100K: (0.72, 0.55, 1.68, 2.02, 0.59, 1.40, 0.52, 1.00, 0.98),
}
