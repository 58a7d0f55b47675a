"""The proxy that the environment names for an address (HTTPS_PROXY and its kin, NO_PROXY)."""

from __future__ import annotations

from urllib.request import getproxies, proxy_bypass

from yarl import URL

from flavor.errors import InputError
from flavor.redact import redact_url


def find_proxy(url: str) -> URL | None:
    """The proxy for ``url``, with its user and password if it has any; None to connect directly.

    Raises:
        InputError: it is of a kind that cannot be used.
    """
    target = URL(url)
    proxies = getproxies()
    named = proxies.get(target.scheme) or proxies.get("all")
    if not named or proxy_bypass(f"{target.host}:{target.port}"):
        return None
    proxy = URL(named if "://" in named else f"http://{named}")
    if proxy.scheme not in {"http", "https"}:
        raise InputError(f"cannot use proxy {redact_url(str(proxy))}: only http and https proxies")
    return proxy
