"""Where requests go and with which credential, as the OpenAI SDK decides it.

The SDK is asked to prepare a request, which a transport of ours keeps instead of sending it. So
address, headers, organisation, Azure's deployments and Entra ID tokens are the SDK's own, at none
of its cost per request. Environment variables are read as MLflow's flavor reads them, and as the
SDK does where MLflow reads none.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import httpx2
from openai import AsyncAzureOpenAI, AsyncOpenAI
from yarl import URL

from flavor.errors import ErrorInfo, InputError, JobError
from flavor.redact import redact_url
from flavor.wire import render_head

# Entra ID tokens live for an hour; azure-identity renews them some minutes before.
TOKEN_CHECK_S = 60.0

TokenProvider = Callable[[], Awaitable[str]]

# What belongs to the connection that is not made, or describes the SDK's own transport.
_DROPPED = {"host", "connection", "content-length", "accept-encoding", "transfer-encoding"}
_AZURE = {"azure", "azure_ad", "azuread"}  # source: mlflow 3.17.2, openai/model.py, _get_api_config
_AZURE_SCOPE = (
    "https://cognitiveservices.azure.com/.default"  # source: mlflow/utils/openai_utils.py
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Address and headers of a request, ready but for its body; ``head`` is both on the wire."""

    url: URL
    headers: Mapping[str, str]
    head: bytes
    prepared_s: float


class Endpoint:
    """One account at one address. Its credential leaves in ``Prepared.headers`` alone."""

    def __init__(
        self,
        sdk: AsyncOpenAI,
        recorder: Recorder,
        *,
        secrets: tuple[str, ...],
        account: str,
        has_token_provider: bool = False,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = redact_url(str(sdk.base_url)).rstrip("/")
        self.secrets = secrets
        self.has_token_provider = has_token_provider
        self.limit_key = _limit_key(self.url, account)
        self._sdk = sdk
        self._recorder = recorder
        self._clock_s = clock_s
        self._prepared: dict[tuple[str, str], Prepared] = {}
        self._preparing = asyncio.Lock()

    async def prepare(self, path: str, openai_model: str) -> Prepared:
        """Address and headers for requests of ``openai_model`` to ``path``.

        Cached; asks again every ``TOKEN_CHECK_S`` where the credential is a token that expires.

        Raises:
            JobError: the environment has put into a header what cannot stand there.
        """
        prepared = self._prepared.get((path, openai_model))
        if prepared and not self._is_stale(prepared):
            return prepared
        async with self._preparing:  # hundreds of rows start at once, one of them asks
            prepared = self._prepared.get((path, openai_model))
            if prepared is None or self._is_stale(prepared):
                prepared = await self._record(path, openai_model)
                self._prepared[path, openai_model] = prepared
        return prepared

    def forget(self, refused: Prepared) -> None:
        """Ask the SDK again next time: the endpoint refused this token."""
        self._prepared = {key: p for key, p in self._prepared.items() if p is not refused}

    async def close(self) -> None:
        """Let go of the SDK's client."""
        await self._sdk.close()

    def _is_stale(self, prepared: Prepared) -> bool:
        return self.has_token_provider and self._clock_s() - prepared.prepared_s > TOKEN_CHECK_S

    async def _record(self, path: str, openai_model: str) -> Prepared:
        await self._sdk.post(path, cast_to=object, body={"model": openai_model})
        request = self._recorder.last
        headers = {
            name: value
            for name, value in request.headers.items()
            if name not in _DROPPED and not name.startswith("x-stainless-")
        }
        # The SDK has made a header of an address's user and password; aiohttp refuses to see both.
        url = URL(str(request.url), encoded=True).with_user(None)
        try:
            head = render_head(url, headers)
        except ValueError as error:
            info = ErrorInfo(type="InvalidHeader", message=f"{error}: check the key's variable")
            raise JobError(info) from None  # the error below holds nothing, its frames do
        return Prepared(url=url, headers=headers, head=head, prepared_s=self._clock_s())


class Recorder(httpx2.AsyncBaseTransport):
    """Keeps the request that the SDK prepared and answers it with an empty object."""

    last: httpx2.Request

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Called by the SDK in place of sending."""
        self.last = request
        return httpx2.Response(200, json={}, request=request)


def read_endpoint(environment: Mapping[str, str]) -> Endpoint:
    """The endpoint that the environment names. Call it inside the event loop that will use it.

    Raises:
        InputError: a key or an address is missing; the text names the variable.
    """
    if environment.get("OPENAI_API_TYPE", "").lower() in _AZURE:
        return _read_azure(environment)
    key = environment.get("OPENAI_API_KEY")
    if not key:
        raise InputError("no API key: set OPENAI_API_KEY")
    base_url = _base_url(environment)
    recorder = Recorder()
    sdk = AsyncOpenAI(
        api_key=key,
        base_url=_checked_url(base_url) if base_url else "https://api.openai.com/v1",
        organization=_organization(environment),
        project=environment.get("OPENAI_PROJECT_ID"),
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=recorder),
    )
    account = "\n".join((key, sdk.organization or "", sdk.project or ""))
    return Endpoint(sdk, recorder, secrets=_secrets(key, base_url), account=account)


def azure_endpoint(
    environment: Mapping[str, str], *, key: str | None, token_provider: TokenProvider | None
) -> Endpoint:
    """Azure's OpenAI with a key, or with tokens of Entra ID."""
    url = _base_url(environment) or environment.get("AZURE_OPENAI_ENDPOINT")
    if not url:
        raise InputError("no Azure endpoint: set AZURE_OPENAI_ENDPOINT (or OPENAI_API_BASE)")
    version = environment.get("OPENAI_API_VERSION")
    if not version:
        raise InputError("no API version: Azure needs OPENAI_API_VERSION")
    recorder = Recorder()
    sdk = AsyncAzureOpenAI(
        api_key=key,
        azure_ad_token_provider=token_provider,
        azure_endpoint=_checked_url(url),
        azure_deployment=environment.get("OPENAI_DEPLOYMENT_NAME"),
        api_version=version,
        organization=_organization(environment),
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=recorder),
    )
    return Endpoint(
        sdk,
        recorder,
        secrets=_secrets(key, url),
        account=key or "entra",  # a token changes; the limits are the resource's
        has_token_provider=token_provider is not None,
    )


def _read_azure(environment: Mapping[str, str]) -> Endpoint:
    key = environment.get("OPENAI_API_KEY") or environment.get("AZURE_OPENAI_API_KEY")
    if key:
        return azure_endpoint(environment, key=key, token_provider=None)
    if environment["OPENAI_API_TYPE"].lower() == "azure":
        raise InputError("no API key: set AZURE_OPENAI_API_KEY (or OPENAI_API_KEY)")
    return azure_endpoint(environment, key=None, token_provider=_entra_tokens())


def _entra_tokens() -> TokenProvider:
    try:
        from azure.identity import DefaultAzureCredential, get_bearer_token_provider  # an extra
    except ImportError as error:
        raise InputError(
            "OPENAI_API_TYPE=azure_ad without a key needs azure-identity: "
            "pip install 'batch-inference-worker[azure]'"
        ) from error
    ask = get_bearer_token_provider(DefaultAzureCredential(), _AZURE_SCOPE)

    async def token() -> str:
        # It may ask the network, and then blocks: the other rows' event loop must not wait for it.
        return str(await asyncio.to_thread(ask))

    return token


def _base_url(environment: Mapping[str, str]) -> str | None:
    """MLflow's spelling wins, as there (openai/model.py, _get_api_config)."""
    return environment.get("OPENAI_API_BASE") or environment.get("OPENAI_BASE_URL") or None


def _checked_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise InputError(
            f"OPENAI_BASE_URL must start with https:// or http://: {redact_url(url)!r}"
        )
    return url


def _organization(environment: Mapping[str, str]) -> str | None:
    return environment.get("OPENAI_ORG_ID") or environment.get("OPENAI_ORGANIZATION")


def _secrets(key: str | None, url: str | None) -> tuple[str, ...]:
    """Exact texts to hide. Not very short ones: hiding those would garble every message."""
    known = (key, URL(url).password if url else None)
    return tuple(text for text in known if text and len(text) >= 6)


def _limit_key(url: str, account: str) -> str:
    """Names the account for the shared limiter. Slow, so that a weak key is not guessed from it."""
    digest = hashlib.pbkdf2_hmac("sha256", account.encode(), url.encode(), 50_000)
    return digest[:12].hex()
