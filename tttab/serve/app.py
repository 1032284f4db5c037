"""The HTTP application: `/predict`, `/schema`, `/health`, `/metrics`, and an OpenAPI page at `/docs`.

`bodies` reads and writes the formats, `batching` is the queue, and `cli.commands.serve` has the process.
"""

from __future__ import annotations

import asyncio
import hmac
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fastapi
from fastapi import HTTPException, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

import tttab
from tttab.errors import DataError
from tttab.serve.batching import Batches, Busy
from tttab.serve.bodies import ARROW, CSV, EXAMPLE, JSON, MEDIA_TYPES, PARQUET, read_body, write_body
from tttab.system.files import cache_folder

if TYPE_CHECKING:
    from tttab.bundle import Bundle

TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = {
    "required": True,
    "content": {
        JSON: {
            "schema": {
                "type": "object",
                "required": ["rows"],
                "properties": {"rows": {"type": "array", "items": {"type": "object"}}},
            },
            "example": EXAMPLE,
        },
        **{
            media_type: {"schema": {"type": "string", "format": "binary"}}
            for media_type in (CSV, PARQUET, ARROW)
        },
    },
}


@dataclass(frozen=True)
class Limits:
    """Limits of one server."""

    body: int = 16 * 2**20
    """Bytes of a request."""
    waiting: int = 20_000
    """Rows that may wait for one bundle's model; beyond them a request is answered 503."""
    seconds: float = 30.0
    """For a request's body to arrive."""


class _Metrics:
    """What `/metrics` reports."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names = ["bundle", "status"]
        self.requests = Counter("tttab_requests", "Requests answered.", names, registry=self.registry)
        self.rows = Counter("tttab_rows", "Rows predicted.", ["bundle"], registry=self.registry)
        self.seconds = Histogram(
            "tttab_seconds", "Seconds to an answer.", ["bundle"], buckets=TIMES, registry=self.registry
        )
        self.calls = Gauge("tttab_calls", "Calls of the model.", ["bundle"], registry=self.registry)
        self.waiting = Gauge("tttab_waiting_rows", "Rows that wait.", ["bundle"], registry=self.registry)


def application(
    bundles: Mapping[str, Bundle], *, token: str = "", limits: Limits | None = None
) -> fastapi.FastAPI:
    """Return the application that serves bundles by name.

    Args:
        bundles: with one of them `/predict` and `/schema` need no name.
        token: what `Authorization: Bearer …` must hold for all but `/health`; empty: nothing is asked.
        limits: of a request and of what may wait.
    """
    limits, counters = limits or Limits(), _Metrics()
    queues = {name: Batches(bundle, limits.waiting) for name, bundle in bundles.items()}
    for name, queue in queues.items():
        counters.calls.labels(name).set_function(lambda queue=queue: queue.calls)
        counters.waiting.labels(name).set_function(lambda queue=queue: queue.waiting)

    @asynccontextmanager
    async def running(app: fastapi.FastAPI) -> AsyncGenerator[None]:
        tasks = [asyncio.create_task(queue.run()) for queue in queues.values()]
        with tempfile.TemporaryDirectory(prefix="serve-", dir=cache_folder()) as app.state.folder:
            yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    app = fastapi.FastAPI(title="tttab", version=tttab.__version__, lifespan=running)
    guards = [fastapi.Depends(_guard(token))]

    def resolved(name: str | None) -> str:
        if name is None and len(bundles) > 1:
            raise HTTPException(404, f"name one of: {', '.join(bundles)}")
        bundle_name = next(iter(bundles)) if name is None else name
        if bundle_name not in bundles:
            raise HTTPException(
                404, f"no bundle is called {bundle_name!r:.60}; there are: {', '.join(bundles)}"
            )
        return bundle_name

    _add_state(app, guards, list(bundles), counters)

    @app.get("/schema", dependencies=guards)
    @app.get("/schema/{name}", dependencies=guards)
    async def schema(name: str | None = None) -> dict[str, Any]:
        """Return the columns that rows must have, the target and its classes."""
        return bundles[resolved(name)].schema.to_dict()

    async def predict(request: Request, name: str | None = None) -> Response:
        """Predict rows: class and probabilities, or mean and quantiles.

        Content-Type gives the format of the rows, Accept that of the answer.
        """
        bundle_name, start = resolved(name), time.perf_counter()
        status = 500
        try:
            answer = await _predict(request, bundles[bundle_name], queues[bundle_name], limits)
            status = 200
            counters.rows.labels(bundle_name).inc(int(answer.headers["x-rows"]))
            return answer
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            counters.requests.labels(bundle_name, str(status)).inc()
            counters.seconds.labels(bundle_name).observe(time.perf_counter() - start)

    for path in ("/predict", "/predict/{name}"):
        app.post(path, dependencies=guards, openapi_extra={"requestBody": _ROWS})(predict)
    return app


def _add_state(app: fastapi.FastAPI, guards: list[Any], names: list[str], counters: _Metrics) -> None:
    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Say that the server is up, and which bundles it serves."""
        return {"status": "ok", "version": tttab.__version__, "bundles": names}

    @app.get("/metrics", dependencies=guards, response_class=fastapi.responses.PlainTextResponse)
    async def metrics() -> str:
        """Return counters and latencies in Prometheus's form."""
        return generate_latest(counters.registry).decode()


def _guard(token: str) -> Any:
    async def check(request: Request) -> None:
        header = request.headers.get("authorization", "")
        if token and not hmac.compare_digest(header.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    return check


async def _predict(request: Request, bundle: Bundle, queue: Batches, limits: Limits) -> Response:
    media_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        raise HTTPException(415, f"Content-Type must be one of {', '.join(MEDIA_TYPES)}")
    accepted = request.headers.get("accept", "*/*").partition(";")[0].partition(",")[0].strip().lower()
    body, folder = await _body(request, limits), request.app.state.folder
    loop = asyncio.get_running_loop()

    def read() -> Any:
        raw = read_body(media_type, body, bundle.schema.text_columns, folder)
        return bundle.schema.read(raw.frame, raw.decimals)

    try:
        rows = await loop.run_in_executor(None, read)
        answers = await queue.predict(rows.x)
    except DataError as error:
        raise HTTPException(422, {"error": error.message, "hint": error.hint}) from error
    except Busy as error:
        raise HTTPException(503, error.message, {"Retry-After": "1"}) from error
    response_type = accepted if accepted in MEDIA_TYPES else JSON
    content = await loop.run_in_executor(None, write_body, response_type, answers, rows.remarks)
    return Response(content, media_type=response_type, headers={"X-Rows": str(len(answers))})


async def _body(request: Request, limits: Limits) -> bytes:
    """Return a request's body; what is too large or too slow is refused before it is whole."""
    too_large = HTTPException(413, f"a request may have {limits.body:,} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > limits.body:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                size += len(part)
                if size > limits.body:
                    raise too_large
                parts.append(part)
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive in {limits.seconds:g} s") from error
    return b"".join(parts)
