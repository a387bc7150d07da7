"""`decigrad serve`: a policy over HTTP.

    POST /decide   {"features": [[…], …] or [{"name": value, …}, …], "known": {"name": …}}  →  decisions
    GET  /policy   what it reads and decides
    GET  /health   {"status": "ready"} once the first decision has been compiled
    GET  /metrics  counts and latencies in Prometheus' text format

Numbers pass through JSON exactly, so an answer equals that of `Policy.decide`. One thread decides, in
the order of arrival; time spent waiting counts towards the time limit.
"""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.errors import ModelError
from decigrad.program import Status

if TYPE_CHECKING:
    from decigrad.policy import Decisions, Policy

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the latency histogram, in seconds."""
READ_SECONDS = 10.0
"""Time in which the body of a request must have arrived."""
GRACE = 5.0
"""Seconds beyond the time limit after which a request is given up (504), where a solver cannot be stopped;
also how long a stop waits for running requests beyond the time limit."""


WAITING = 64
"""Requests that may wait at once; more are sent away (503)."""


class Refused(Exception):
    """A request that is answered by an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Metrics:
    """What the server has done."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.rows: Counter[str] = Counter()
        self.latencies: list[int] = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.running = 0

    def answered(self, code: int, seconds: float) -> None:
        """Count one request."""
        self.answers[code] += 1
        self.seconds += seconds
        self.latencies[int(np.searchsorted(BUCKETS, seconds))] += 1

    def decided(self, found: Decisions) -> None:
        """Count decisions."""
        failed = found.status != Status.OPTIMAL
        self.rows.update(decided=len(found), failed=int(failed.sum()), fallback=int(found.fallback.sum()))

    def text(self) -> str:
        """In Prometheus' text format."""
        ends = [*map(repr, BUCKETS), "+Inf"]
        requests = [(f'{{code="{code}"}}', count) for code, count in sorted(self.answers.items())]
        buckets = [
            (f'_bucket{{le="{e}"}}', n) for e, n in zip(ends, np.cumsum(self.latencies).tolist(), strict=True)
        ]
        buckets += [("_sum", self.seconds), ("_count", sum(self.latencies))]
        series: list[tuple[str, str, str, list[tuple[str, Any]]]] = [
            ("requests_total", "counter", "Requests for decisions, by the code of the answer.", requests),
            ("rows_total", "counter", "Rows that were answered.", [("", self.rows["decided"])]),
            ("failed_rows_total", "counter", "Rows without an optimal solve.", [("", self.rows["failed"])]),
            ("fallback_rows_total", "counter", "Rows with the fallback.", [("", self.rows["fallback"])]),
            ("running_requests", "gauge", "Requests being answered.", [("", self.running)]),
            ("request_seconds", "histogram", "Time to answer.", buckets),
        ]
        lines = []
        for name, kind, what, values in series:
            lines += [f"# HELP decigrad_{name} {what}", f"# TYPE decigrad_{name} {kind}"]
            lines += [f"decigrad_{name}{label} {value!r}" for label, value in values]
        return "\n".join(lines) + "\n"


class Service:
    """Requests to decisions, for one policy."""

    def __init__(
        self,
        policy: Policy,
        *,
        time_limit: float | None,
        max_rows: int,
        max_bytes: int,
    ) -> None:
        self.policy, self.time_limit = policy, time_limit
        self.max_rows, self.max_bytes = max_rows, max_bytes
        self.metrics = Metrics()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decigrad")

    def app(self) -> Any:
        """The ASGI application."""
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse, PlainTextResponse
        from starlette.routing import Route

        async def health(request: Any) -> Any:
            return JSONResponse({"status": "ready"})

        async def policy(request: Any) -> Any:
            return JSONResponse(self.description())

        async def metrics(request: Any) -> Any:
            return PlainTextResponse(self.metrics.text(), media_type="text/plain; version=0.0.4")

        return Starlette(
            routes=[
                Route("/decide", self._decide, methods=["POST"]),
                Route("/policy", policy),
                Route("/health", health),
                Route("/metrics", metrics),
            ]
        )

    def description(self) -> dict[str, Any]:
        """What the policy reads and decides."""
        layer, names = self.policy.layer, self.policy.feature_names
        return {
            "features": {
                "names": None if names is None else list(names),
                "shape": list(self.policy.feature_shape or ()),
            },
            "known": {n: list(p.shape) for n, p in layer.parameters.items() if n not in layer.predicts},
            "needed": self.policy.known_needed,
            "decisions": {n: list(v.shape) for n, v in layer.form.variables.items()},
            "limits": {"rows": self.max_rows, "bytes": self.max_bytes, "seconds": self.time_limit},
        }

    async def _decide(self, request: Any) -> Any:
        from starlette.responses import Response

        start, self.metrics.running = time.perf_counter(), self.metrics.running + 1
        code, body = 500, b'{"error":"internal error"}'
        try:
            found = await self._answer(request, start)
            self.metrics.decided(found)
            code, body = 200, json.dumps(answer(found), allow_nan=False, separators=(",", ":")).encode()
        except Refused as error:
            code, body = error.code, json.dumps({"error": str(error)}).encode()
        finally:
            self.metrics.running -= 1
            self.metrics.answered(code, time.perf_counter() - start)
        return Response(body, code, media_type="application/json")

    async def _answer(self, request: Any, start: float) -> Decisions:
        from starlette.requests import ClientDisconnect

        if self.metrics.running > WAITING:
            raise Refused(503, f"{WAITING} requests are waiting: try again later")
        try:
            body = await asyncio.wait_for(self._body(request), READ_SECONDS)
        except TimeoutError:
            raise Refused(408, f"the request did not arrive within {READ_SECONDS:g} seconds") from None
        except ClientDisconnect:
            raise Refused(400, "the client hung up before the request had arrived") from None

        def decide() -> Decisions:
            features, known = read(body, self.policy, self.max_rows)
            left = None
            if self.time_limit is not None:
                left = max(self.time_limit - (time.perf_counter() - start), 0.0)
            return self.policy.decide(features, known, time_limit=left, throw=False)

        waited = None if self.time_limit is None else self.time_limit + GRACE
        future = asyncio.get_running_loop().run_in_executor(self._thread, decide)
        try:
            return await asyncio.wait_for(future, waited)
        except ModelError as error:
            raise Refused(422, str(error)) from None
        except TimeoutError:
            raise Refused(504, f"no decision within {waited:g} seconds") from None

    async def _body(self, request: Any) -> bytes:
        message = f"a request may have {self.max_bytes} bytes"
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self.max_bytes:
            raise Refused(413, f"{message}, this one has {declared}")
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.max_bytes:
                raise Refused(413, f"{message}, this one has more")
            parts.append(part)
        return b"".join(parts)


# ------------------------------------------------------------------------------------------ reading, writing


def read(body: bytes, policy: Policy, max_rows: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Features and known parameters of a request.

    Raises:
        Refused: what is wrong, with its row and column.
    """
    try:
        given = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(422, f"the body is not JSON: {error}") from None
    if not isinstance(given, dict) or not isinstance(rows := given.get("features"), list) or not rows:
        raise Refused(422, 'the body must be {"features": [row, …], "known": {…}} with at least one row')
    if spare := set(given) - {"features", "known"}:
        raise Refused(422, f"the body holds {sorted(spare)}, and may hold features and known")
    if len(rows) > max_rows:
        raise Refused(413, f"a request may have {max_rows} rows, this one has {len(rows)}")
    if not isinstance(stated := given.get("known") or {}, dict):
        raise Refused(422, "known must be an object with parameters by name")
    layer, known = policy.layer, {}
    for name, value in stated.items():
        if name not in layer.parameters or name in layer.predicts:
            raise Refused(422, f"known: {name!r} is not a known parameter of the policy")
        shape = layer.parameters[name].shape
        by_row = _depth(value) > len(shape)
        known[name] = _numbers(value, (len(rows), *shape) if by_row else shape, f"known {name!r}")
    if all(isinstance(row, dict) for row in rows):
        features, found = _by_name(rows, policy, stated)
        return features, {**found, **known}
    shape = policy.feature_shape or ()
    return np.stack([_numbers(r, shape, f"row {i}", policy.feature_names) for i, r in enumerate(rows)]), known


def _by_name(
    rows: list[dict[str, Any]], policy: Policy, stated: dict[str, Any]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows that are objects with values by column."""
    if policy.feature_names is None:
        raise Refused(
            422, "the policy does not know the names of its features: give rows as lists of numbers"
        )
    names = list(policy.feature_names) if stated else policy.table_columns
    columns: dict[str, list[float]] = {name: [] for name in names}
    for i, row in enumerate(rows):
        if missing := [name for name in names if name not in row]:
            raise Refused(422, f"row {i} lacks column {missing[0]!r}")
        if len(row) > len(names):
            raise Refused(422, f"row {i} has an unknown column {next(n for n in row if n not in columns)!r}")
        for name in names:
            columns[name].append(_number(row[name], f"row {i}, column {name!r}"))
    if stated:
        return np.array([columns[name] for name in names]).T, {}
    return policy.from_columns({name: np.array(values) for name, values in columns.items()})


def _numbers(value: Any, shape: tuple[int, ...], where: str, names: Any = None) -> np.ndarray:
    """Nested lists of finite numbers as an array of a shape."""
    if not shape:
        return np.asarray(_number(value, where))
    if not isinstance(value, list) or len(value) != shape[0]:
        got = f"{len(value)} entries" if isinstance(value, list) else type(value).__name__
        raise Refused(422, f"{where} must have {shape[0]} entries, got {got}")
    parts = []
    for i, part in enumerate(value):
        label = f"{where}, column {names[i]!r}" if names is not None else f"{where}, entry {i}"
        parts.append(_numbers(part, shape[1:], label))
    return np.stack(parts)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(422, f"{where}: {json.dumps(value)[:60]} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Refused(422, f"{where}: the number is too large")
    return number


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list) and value:
        value, depth = value[0], depth + 1
    return depth


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def answer(found: Decisions) -> dict[str, Any]:
    """The body of an answer: null where there is no number."""
    return {
        "decisions": {name: _listed(value) for name, value in found.x.items()},
        "predicted": {name: _listed(value) for name, value in found.predicted.items()},
        "objective": _listed(found.objective),
        "status": [Status(int(s)).name for s in found.status],
        "fallback": found.fallback.tolist(),
        "seconds": found.seconds,
    }


def _listed(array: np.ndarray) -> Any:
    finite = np.isfinite(array)
    values: Any = array if finite.all() else array.astype(object)
    if values is not array:
        values[~finite] = None
    return values.tolist()


# -------------------------------------------------------------------------------------------------- running


def run(
    policy: Policy,
    *,
    host: str,
    port: int,
    time_limit: float | None,
    max_rows: int,
    max_bytes: int,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests are finished."""
    try:
        import uvicorn

        service = Service(policy, time_limit=time_limit, max_rows=max_rows, max_bytes=max_bytes)
        app = service.app()
    except ImportError:
        raise ImportError(
            "decigrad serve needs Starlette and uvicorn: pip install 'decigrad[serve]'"
        ) from None
    policy.warm_up()
    with _listening(host, port) as listener:
        address, taken = listener.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        if not _loopback(address):
            warn(
                f"{shown} can be reached from other machines, and there is no authentication or encryption: "
                f"put a proxy that has them in front, or leave --host out"
            )
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", server_header=False,
            timeout_graceful_shutdown=math.ceil((time_limit or 60.0) + GRACE),
        )  # fmt: skip
        # uvicorn raises the signal again after a graceful stop; the stop was the answer to it.
        before = [signal.signal(s, lambda *_: None) for s in (signal.SIGTERM, signal.SIGINT)]
        say(f"Serving {policy!r} on http://{shown}:{taken}")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            for s, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
                signal.signal(s, handler)
    say("Stopped.")


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except socket.gaierror as error:
        raise ModelError(f"there is no address {host!r}: {error.strerror}") from None
    except OSError as error:
        free = "; --port 0 takes a free one" if error.errno == errno.EADDRINUSE else ""
        raise ModelError(
            f"cannot listen on {host}, port {port}: {os.strerror(error.errno or 0)}{free}"
        ) from None


def _loopback(address: str) -> bool:
    import ipaddress

    return ipaddress.ip_address(address).is_loopback
