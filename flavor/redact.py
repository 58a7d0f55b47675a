"""Takes secrets out of texts that will be stored or shown: errors, log lines, addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "[redacted]"

_PATTERNS = (
    # OpenAI's keys, also as its own messages show them (sk-abc***xyz)
    (re.compile(r"\bsk-[\w*.\-]{8,}"), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=\-]{8,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{HIDDEN}@"),  # user and password of an address
    (
        re.compile(r"(?i)\b((?:api[-_]?)?key|token|secret|password|sig)=[^&\s\"']+"),
        rf"\1={HIDDEN}",
    ),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without ``secrets`` and without anything that looks like one."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_url(url: str) -> str:
    """An address fit for people and logs: no user, no password, no query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
