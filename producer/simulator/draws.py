"""Hashes of prompts, and the dice that depend on nothing but seed, model and prompt.

No generator with a state: the order in which requests arrive must not change an answer.
"""

from collections.abc import Sequence
from hashlib import blake2b

_RANGE = 2.0**64


def prompt_key(text: str) -> int:
    """The 64 bits by which a prompt is known; at 1,000,000 prompts two collide once in 10^7."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def prompt_hash(text: str) -> str:
    """``prompt_key`` as ``GET /stats`` writes it.

    The text is what the model is asked: the contents of the messages, joined by newlines
    where there are several; a completion's prompt; an embedding's input.
    """
    return f"{prompt_key(text):016x}"


def joint_key(keys: Sequence[int]) -> int:
    """The key of a request with these prompts."""
    return keys[0] if len(keys) == 1 else prompt_key(",".join(map(str, keys)))


def draw_int(purpose: str, *, seed: int, openai_model: str, key: int, nth: int = 0) -> int:
    """64 random bits that are always the same for the same arguments."""
    material = f"{purpose}|{seed}|{openai_model}|{key}|{nth}".encode()
    return int.from_bytes(blake2b(material, digest_size=8).digest(), "big")


def draw(purpose: str, *, seed: int, openai_model: str, key: int, nth: int = 0) -> float:
    """A number in [0, 1) that is always the same for the same arguments."""
    bits = draw_int(purpose, seed=seed, openai_model=openai_model, key=key, nth=nth)
    # 53 bits are what a float holds: more of them could round up to 1.0.
    return (bits >> 11) * 2048 / _RANGE
