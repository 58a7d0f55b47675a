"""The simulated API: a request comes in, a decision on its answer goes out. No I/O, no waiting.

All mutable state of a simulation hangs on ``SimulatedApi``. A request is judged in the order
of a real one: key, body, model, quota, limits; then the faults have their turn.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import orjson

from producer.simulator.capacity import Capacity
from producer.simulator.draws import joint_key, prompt_key
from producer.simulator.embeddings import Vectors, read_embedding
from producer.simulator.errors import ApiError, check_context, check_key, check_model, out_of_quota
from producer.simulator.faults import Fault, FaultDrawer
from producer.simulator.latency import latency_s
from producer.simulator.limits import Admission, Limits
from producer.simulator.protocol import Delivery, Response
from producer.simulator.refusals import fault_error, over_limit, overloaded
from producer.simulator.replies import Origin, Reply, model_card, model_list, reply
from producer.simulator.requests import (
    Endpoint,
    ModelRequest,
    load_body,
    read_chat,
    read_completion,
    read_model,
)
from producer.simulator.routes import Control, Route, find_route
from producer.simulator.settings import SimulatorSettings
from producer.simulator.stats import Stats
from producer.simulator.wire import Request

log = logging.getLogger(__name__)

_GARBAGE = b"<html>simulated garbage: this is not JSON</html>"
_READERS = {
    Endpoint.CHAT: read_chat,
    Endpoint.COMPLETIONS: read_completion,
    Endpoint.EMBEDDINGS: read_embedding,
}
_DELIVERIES = {Fault.TRUNCATE: Delivery.TRUNCATED, Fault.RESET: Delivery.RESET}


@dataclass(slots=True, kw_only=True)  # not frozen: see ``ModelRequest``
class _Asked:
    """A request that may be answered, with what was found out about it."""

    request: ModelRequest
    keys: tuple[int, ...]  # of its rows
    key: int  # of the whole
    api_key: str


class SimulatedApi:
    """One simulation.

    Mutable state: the settings in force, the counts, the limits' accounts, how often the faults saw
    prompts, who is worked on, the tokens each key has used of its quota, vectors, the last serial.
    """

    def __init__(
        self, settings: SimulatorSettings, *, now_s: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings
        self.stats = Stats(now_s=now_s)
        self._now_s = now_s
        self._limits = Limits()
        self._faults = FaultDrawer()
        self._capacity = Capacity()
        self._used_tokens: dict[str, int] = {}
        self._vectors = Vectors()
        self._serial = 0

    def handle(self, request: Request) -> Response:
        """Decide on the answer to a request; ``finished`` must follow where it is counted."""
        self._serial += 1
        route = find_route(request.head.path)
        if route is not None and route.endpoint is not None and request.head.method == "POST":
            response = self._infer(request, route=route, endpoint=route.endpoint)
        else:
            response = self._look_up(request, route=route)
        if self.settings.access_log:
            facts = {"event": "request_answered", "status": response.status}
            log.info(
                "%s %s %d", request.head.method, request.head.path, response.status, extra=facts
            )
        return response

    def finished(self, response: Response, *, is_delivered: bool) -> None:  # noqa: ARG002 - the protocol's signature
        """Count a request out."""
        self.stats.ended(is_delivered=is_delivered)

    def _infer(self, request: Request, *, route: Route, endpoint: Endpoint) -> Response:
        self.stats.began()
        now_s = self._now_s()
        limit_headers = ""
        try:
            asked = self._read(request, route=route, endpoint=endpoint)
            admission = self._admit(asked, now_s=now_s)
            limit_headers = admission.headers
            if not admission.is_admitted:
                name = asked.request.openai_model
                raise over_limit(admission, openai_model=name, settings=self.settings, now_s=now_s)
            return self._answer(asked, limit_headers=limit_headers, now_s=now_s)
        except ApiError as error:
            self.stats.refused(error.status)
            return self._error_response(error, limit_headers=limit_headers)

    def _read(self, request: Request, *, route: Route, endpoint: Endpoint) -> _Asked:
        """Check all that keeps a request from an answer, whatever the load is.

        Raises:
            ApiError: something does.
        """
        settings = self.settings
        api_key = check_key(request.head.api_key, settings=settings)
        body = load_body(request.body)
        _check_api_version(request, route=route)
        openai_model = route.deployment or read_model(body)
        check_model(openai_model, is_azure=route.deployment is not None, settings=settings)
        read = _READERS[endpoint](body, openai_model=openai_model)
        if endpoint is not Endpoint.EMBEDDINGS:
            check_context(read.prompt_tokens, most=settings.context_tokens)
        quota = settings.quota_tokens
        if quota is not None and self._used_tokens.get(api_key, 0) >= quota:
            raise out_of_quota()
        keys = tuple(map(prompt_key, read.texts))
        return _Asked(request=read, keys=keys, key=joint_key(keys), api_key=api_key)

    def _admit(self, asked: _Asked, *, now_s: float) -> Admission:
        request = asked.request
        tokens = request.estimated_tokens
        if self.settings.charges_usage and request.endpoint is not Endpoint.EMBEDDINGS:
            known = reply(request, keys=asked.keys, origin=self._origin(now_s))
            tokens = known.prompt_tokens + known.completion_tokens
        return self._limits.admit(
            (asked.api_key, request.openai_model),
            tokens=tokens,
            settings=self.settings,
            now_s=now_s,
        )

    def _answer(self, asked: _Asked, *, limit_headers: str, now_s: float) -> Response:
        """Play a fault, or answer and charge.

        Raises:
            ApiError: the fault is one.
        """
        request = asked.request
        fault = self._faults.fault(
            request.texts, key=asked.key, openai_model=request.openai_model, settings=self.settings
        )
        if fault is not None:
            unpaid = self._play(fault, asked=asked, now_s=now_s)
            if unpaid is not None:
                return unpaid
        delay_s = self._delay_s(asked, now_s=now_s)
        made = reply(request, keys=asked.keys, origin=self._origin(now_s))
        self._charge(asked, made=made)
        return Response(
            status=200,
            body=_encoded(made.payload, fault=fault),
            headers=(
                f"x-request-id: req_sim_{self._serial}\r\n"
                f"openai-processing-ms: {delay_s * 1000:.0f}\r\n{limit_headers}"
            ),
            delay_s=delay_s,
            delivery=Delivery.WHOLE if fault is None else _DELIVERIES.get(fault, Delivery.WHOLE),
            is_counted=True,
        )

    def _delay_s(self, asked: _Asked, *, now_s: float) -> float:
        """The time to answer, waiting in the queue included. Raises ``ApiError``: it is full."""
        request, settings = asked.request, self.settings
        delay_s = latency_s(
            request.texts, key=asked.key, openai_model=request.openai_model, settings=settings
        )
        wait_s = self._capacity.wait_s(delay_s, now_s=now_s, settings=settings)
        if wait_s is None:
            raise overloaded()
        return wait_s + delay_s

    def _play(self, fault: Fault, *, asked: _Asked, now_s: float) -> Response | None:
        """Play a fault that costs nothing; None: it is a flaw of an answer that does.

        Raises:
            ApiError: the fault is an answer with an error.
        """
        self.stats.struck(fault)
        where, settings = asked.request.endpoint, self.settings
        error = fault_error(
            fault, endpoint=where, key=asked.api_key, settings=settings, now_s=now_s
        )
        if error is not None:
            raise error
        if fault is Fault.TIMEOUT:
            return Response(status=200, body=b"", delivery=Delivery.HELD, is_counted=True)
        if fault is Fault.RESET and not self.settings.reset_is_paid:
            return Response(status=200, body=b"", delivery=Delivery.DROPPED, is_counted=True)
        return None

    def _charge(self, asked: _Asked, *, made: Reply) -> None:
        stats = self.stats
        stats.charged(
            asked.keys,
            prompt_tokens=made.prompt_tokens,
            completion_tokens=made.completion_tokens,
        )
        used = made.prompt_tokens + made.completion_tokens
        self._used_tokens[asked.api_key] = self._used_tokens.get(asked.api_key, 0) + used
        if len(stats.texts) < self.settings.keep_texts:
            for key, text in zip(asked.keys, asked.request.texts, strict=True):
                stats.keep_text(text, key=key)

    def _origin(self, now_s: float) -> Origin:
        return Origin(
            seed=self.settings.seed,
            serial=self._serial,
            created_s=int(now_s),
            cached_share=self.settings.cached_share,
            is_shuffled=self.settings.shuffle_embeddings,
            vectors=self._vectors,
            keep_vectors=self.settings.keep_vectors,
        )

    def _error_response(
        self, error: ApiError, *, limit_headers: str = "", is_counted: bool = True
    ) -> Response:
        lines = "".join(f"{name}: {value}\r\n" for name, value in error.headers)
        return Response(
            status=error.status,
            body=orjson.dumps(error.payload()),
            headers=f"{lines}x-request-id: req_sim_{self._serial}\r\n{limit_headers}",
            is_counted=is_counted,
        )

    def _look_up(self, request: Request, *, route: Route | None) -> Response:
        """Answer what is not asked of a model; not counted."""
        try:
            payload = self._looked_up(request, route=route)
        except ApiError as error:
            return self._error_response(error, is_counted=False)
        return Response(status=200, body=orjson.dumps(payload))

    def _looked_up(self, request: Request, *, route: Route | None) -> dict[str, Any]:
        head = request.head
        if route is None:
            raise ApiError(f"Invalid URL ({head.method} {head.path})", status=404)
        if route.method not in {None, head.method} or head.method not in {"GET", "POST"}:
            raise ApiError(f"Not allowed to {head.method} on {head.path}", status=405)
        match route.control:
            case Control.STATS:
                options = parse_qs(head.query)
                return self.stats.payload(
                    has_prompts="prompts" in options, has_texts="texts" in options
                )
            case Control.RESET:
                self.stats = self.stats.fresh()
                self._faults = FaultDrawer()
                return self.stats.payload()
            case Control.CONFIG:
                return self._configure(request)
        return self._models(request, wanted=route.listed_model or "")

    def _configure(self, request: Request) -> dict[str, Any]:
        if request.head.method == "POST":
            try:
                self.settings = self.settings.changed(load_body(request.body))
            except ValueError as error:
                raise ApiError(str(error)) from error
        return self.settings.model_dump(mode="json", exclude={"keys"})

    def _models(self, request: Request, *, wanted: str) -> dict[str, Any]:
        check_key(request.head.api_key, settings=self.settings)
        if not wanted:
            return model_list(self.settings.models)
        check_model(wanted, is_azure=False, settings=self.settings)
        return model_card(wanted)


def _check_api_version(request: Request, *, route: Route) -> None:
    if route.deployment is not None and "api-version" not in parse_qs(request.head.query):
        raise ApiError("Resource not found", status=404, kind=None, code="404")


def _encoded(payload: dict[str, Any], *, fault: Fault | None) -> bytes:
    if fault is Fault.GARBAGE:
        return _GARBAGE
    if fault is Fault.NO_USAGE:
        payload.pop("usage")
    elif fault is Fault.NO_CHOICES:
        payload.pop("choices", None)
        payload.pop("data", None)
    return orjson.dumps(payload, option=orjson.OPT_SERIALIZE_NUMPY)
