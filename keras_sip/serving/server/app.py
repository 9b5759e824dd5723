"""The routes: predict, status of the model, health and metrics, and no other."""

import asyncio
import contextlib
import dataclasses
import logging
import time

import orjson
import prometheus_client
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from keras_sip.errors import check_number, check_positive_int, three_part
from keras_sip.serving.server.batching import MicroBatcher, QueueFull
from keras_sip.serving.server.protocol import BadRequest, read_request, write_answer
from keras_sip.serving.server.served_model import ServedModel

LOG = logging.getLogger("keras_sip")
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes.

    Args:
        max_batch: Examples in a batch, and in a request.
        max_wait: Seconds that a request waits for others.
        max_queue: Examples that may wait; more are answered with 503.
        max_bytes: Of a request's body; more are answered with 413.
        max_steps: That a request may ask of `refine`.
        body_seconds: Within which a body arrives whole, or the answer is 408.
    """

    max_batch: int = 32
    max_wait: float = 0.002
    max_queue: int = 256
    max_bytes: int = 16 * 2**20
    max_steps: int = 1000
    body_seconds: float = 30.0

    def __post_init__(self):
        for name in ("max_batch", "max_queue", "max_bytes", "max_steps"):
            check_positive_int(name, getattr(self, name))
        check_number("max_wait", self.max_wait)
        check_number("body_seconds", self.body_seconds, exclusive=True)


def application(model: ServedModel, limits: Limits | None = None) -> Starlette:
    """The ASGI application that serves `model` under its name.

    | route | answers |
    |---|---|
    | `POST /v1/models/NAME:predict` | the outputs of a signature, in TensorFlow Serving's REST format |
    | `GET /v1/models/NAME` | version and state |
    | `GET /healthz` | 200 while the server takes requests |
    | `GET /metrics` | counts and times, as Prometheus reads them |
    """
    service = _Service(model, limits or Limits())
    path = f"/v1/models/{model.name}"
    return Starlette(
        routes=[
            Route(f"{path}:predict", service.predict, methods=["POST"]),
            Route(path, service.status, methods=["GET"]),
            Route("/healthz", service.health, methods=["GET"]),
            Route("/metrics", service.metrics, methods=["GET"]),
        ],
        lifespan=service.lifespan,
        exception_handlers={HTTPException: service.refused_route, Exception: service.failed},
    )


class _Service:
    def __init__(self, model: ServedModel, limits: Limits) -> None:
        self._model, self._limits = model, limits
        self._metrics = _Metrics(lambda: self._batcher.waiting if self._batcher else 0)
        self._batcher: MicroBatcher | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self, app):
        limits = self._limits
        async with MicroBatcher(
            self._model,
            self._model.signatures,
            max_batch=limits.max_batch,
            max_wait=limits.max_wait,
            max_queue=limits.max_queue,
            on_batch=self._metrics.batch_examples.observe,
        ) as self._batcher:
            yield

    async def predict(self, http: HTTPRequest) -> Response:
        start = time.perf_counter()
        signature = "none"
        try:
            body = await asyncio.wait_for(self._body(http), self._limits.body_seconds)
            limits = self._limits
            request = read_request(
                body, self._model.signatures, max_examples=limits.max_batch, max_steps=limits.max_steps
            )
            signature = request.signature
            outputs = await self._batcher(signature, request.inputs, request.examples)  # type: ignore[misc]
            response = _json(200, write_answer(outputs, by_instance=request.by_instance))
        except BadRequest as error:
            response = _refusal(400, error)
        except QueueFull as error:
            response = _refusal(503, error, {"Retry-After": "1"})
        except HTTPException as error:
            response = _refusal(error.status_code, error.detail, {"Connection": "close"})
        except (TimeoutError, ClientDisconnect):
            expected = f"the whole body within {self._limits.body_seconds:g} s"
            response = _refusal(408, three_part(expected, "a part of it", "Send it again."), {"Connection": "close"})
        except Exception as error:
            response = self._failure(error)
        self._metrics.requests.labels(signature, str(response.status_code)).inc()
        self._metrics.seconds.labels(signature).observe(time.perf_counter() - start)
        return response

    async def status(self, http: HTTPRequest) -> Response:
        fine = {"error_code": "OK", "error_message": ""}
        state = {"version": self._model.version, "state": "AVAILABLE", "status": fine}
        return _json(200, orjson.dumps({"model_version_status": [state]}))

    async def health(self, http: HTTPRequest) -> Response:
        return _json(200, b'{"status": "ok"}')

    async def metrics(self, http: HTTPRequest) -> Response:
        text = prometheus_client.generate_latest(self._metrics.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    async def refused_route(self, http: HTTPRequest, error: Exception) -> Response:
        code = error.status_code if isinstance(error, HTTPException) else 404
        path = f"/v1/models/{self._model.name}"
        routes = f"POST {path}:predict, GET {path}, GET /healthz or GET /metrics"
        text = three_part(routes, f"{http.method} of another path or method", "Correct the address.")
        return _refusal(code, text, getattr(error, "headers", None))

    async def failed(self, http: HTTPRequest, error: Exception) -> Response:
        return self._failure(error)

    def _failure(self, error):
        LOG.error("A request failed.", exc_info=error)
        what = f"{type(error).__name__}, which the server's log tells in full"
        return _refusal(500, three_part("an answer of the model", what, "Ask who runs the server."))

    async def _body(self, http):
        """The body, no more of which is ever held than is allowed."""
        limit = self._limits.max_bytes
        too_large = HTTPException(
            413, three_part(f"a body of at most {limit} bytes", "a larger one", "Send fewer examples at a time.")
        )
        declared = http.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > limit:
            raise too_large
        body = bytearray()
        async for chunk in http.stream():
            body += chunk
            if len(body) > limit:
                raise too_large
        return bytes(body)


class _Metrics:
    """Counters and histograms of one server."""

    def __init__(self, waiting):
        self.registry = registry = prometheus_client.CollectorRegistry()
        self.requests = prometheus_client.Counter(
            "keras_sip_requests", "Predict requests.", ["signature", "code"], registry=registry
        )
        self.seconds = prometheus_client.Histogram(
            "keras_sip_request_seconds", "From request to answer.", ["signature"], buckets=SECONDS, registry=registry
        )
        self.batch_examples = prometheus_client.Histogram(
            "keras_sip_batch_examples", "Examples run together.", buckets=[2**k for k in range(11)], registry=registry
        )
        queue = prometheus_client.Gauge("keras_sip_queue_examples", "Examples that wait.", registry=registry)
        queue.set_function(waiting)


def _json(code, content, headers=None):
    return Response(content, code, headers, media_type="application/json")


def _refusal(code, error, headers=None):
    return _json(code, orjson.dumps({"error": str(error)}), headers)
