"""Which proxy the environment names for an endpoint."""

from __future__ import annotations

import pytest

from flavor.errors import InputError
from flavor.proxy import find_proxy


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://p:1"}, None),
        ({"HTTPS_PROXY": "http://me:pw@p:1"}, "http://me:pw@p:1"),
        ({"https_proxy": "p:1"}, "http://p:1"),
        ({"ALL_PROXY": "https://p:1"}, "https://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other,.openai.com"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
    ],
)
def test_the_proxy_is_the_environments(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    proxy = find_proxy("https://api.openai.com/v1")

    assert (proxy and str(proxy)) == expected


def test_a_proxy_that_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@p:1")

    with pytest.raises(InputError, match="socks5://p:1") as caught:
        find_proxy("https://api.openai.com/v1")

    assert "secret" not in str(caught.value)
