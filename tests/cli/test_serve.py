"""`decigrad serve` in a process of its own: the same decisions, plain refusals, limits, a graceful stop."""

from __future__ import annotations

import asyncio
import http.client
import importlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import decigrad as dg
from decigrad.policy import Policy
from decigrad.predictors import LinearPredictor

serve = importlib.import_module("decigrad.cli.serve")  # the package's own attribute is the command
RNG = np.random.default_rng(1)
X = RNG.normal(size=(9, 3))
NAMES = ["a", "b", "c"]


def rule(**options: Any) -> Policy:
    m = dg.Model("split")
    x, c = m.continuous("x", shape=2, lb=0.0), m.parameter("cost", shape=2)
    cap = m.parameter("cap", shape=2, known=True, value=[1.0, 1.0])
    m.minimize(dg.sum(c * x) + dg.sum(x * x))
    m.subject_to(dg.sum(x) == 1.0)
    m.subject_to(x <= cap)
    weight = np.random.default_rng(0).normal(size=(2, 3))
    predictor = LinearPredictor(None, None, None, None, (("cost", (2,)),), weight, None)
    return Policy(predictor, dg.DecisionLayer(m), feature_names=NAMES, **options)


POLICY = rule()


class Server:
    """A running `decigrad serve`."""

    def __init__(self, path: Path, *options: str) -> None:
        command = [sys.executable, "-m", "decigrad", "serve", str(path), "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.first)
        assert found, (self.first, self.process.communicate())
        self.port = int(found[1])

    def ask(self, body: Any = None, path: str = "/decide", method: str = "POST") -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        connection.request(method, path, body=text if method == "POST" else None)
        answer = connection.getresponse()
        content = answer.read().decode()
        connection.close()
        return answer.status, json.loads(content) if content.startswith("{") else content

    def stop(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = POLICY.save(tmp_path_factory.mktemp("serve") / "rule.decigrad")
    running = Server(path, "--max-rows", "20", "--max-bytes", "4000")
    yield running
    if running.process.poll() is None:
        running.stop()


def test_answers_are_those_of_the_policy_to_the_last_bit(server: Server):
    expected = POLICY.decide(X)
    by_name = [dict(zip(NAMES, row, strict=True)) for row in X.tolist()]
    for rows in (X.tolist(), by_name):
        code, found = server.ask({"features": rows})
        assert code == 200
        assert np.array(found["decisions"]["x"]).tobytes() == expected.x["x"].tobytes()
        assert np.array(found["predicted"]["cost"]).tobytes() == expected.predicted["cost"].tobytes()
        assert np.array(found["objective"]).tobytes() == expected.objective.tobytes()
        assert found["status"] == ["OPTIMAL"] * 9 and found["fallback"] == [False] * 9
    for i, row in enumerate(X.tolist()):
        assert server.ask({"features": [row]})[1]["decisions"]["x"] == [expected.x["x"][i].tolist()]


def test_known_parameters_are_shared_or_by_row(server: Server):
    cap = RNG.uniform(0.55, 1.0, (9, 2))
    for given in (cap, cap[0]):
        code, found = server.ask({"features": X.tolist(), "known": {"cap": given.tolist()}})
        assert code == 200
        expected = POLICY.decide(X, {"cap": given}).x["x"]
        assert np.array(found["decisions"]["x"]).tobytes() == expected.tobytes()


def test_rows_without_a_decision_are_null(server: Server):
    cap = [[0.6, 0.6], [0.1, 0.1]]
    code, found = server.ask({"features": X[:2].tolist(), "known": {"cap": cap}})
    assert code == 200 and found["status"] == ["OPTIMAL", "PRIMAL_INFEASIBLE"]
    assert found["decisions"]["x"][1] == [None, None] and found["objective"][1] is None


ROW = [1.0, 2.0, 3.0]
BAD: list[tuple[Any, int, str]] = [
    ("{", 422, "not JSON"),
    (b"\xff", 422, "not JSON"),
    ("[" * 3000, 422, "not JSON"),
    ('{"features": [[1, 2, NaN]]}', 422, "NaN is not a number"),
    ('{"features": [[1, 2, 1e999]]}', 422, "row 0, column 'c': the number is too large"),
    ({"features": []}, 422, "at least one row"),
    ([ROW], 422, "the body must be"),
    ({"features": [ROW], "knwon": {}}, 422, "knwon"),
    ({"features": [ROW, [1.0, 2.0]]}, 422, "row 1 must have 3 entries, got 2 entries"),
    ({"features": [ROW, 5]}, 422, "row 1 must have 3 entries, got int"),
    ({"features": [ROW, [1.0, None, 3.0]]}, 422, "row 1, column 'b': null is not a number"),
    ({"features": [ROW, [1.0, True, 3.0]]}, 422, "row 1, column 'b': true is not a number"),
    ({"features": [[1.0, "2", 3.0]]}, 422, "row 0, column 'b': \"2\" is not a number"),
    ({"features": [{"a": 1, "b": 2}]}, 422, "row 0 lacks column 'c'"),
    ({"features": [{"a": 1, "b": 2, "c": 3, "d": 4}]}, 422, "row 0 has an unknown column 'd'"),
    ({"features": [ROW], "known": {"cup": 1}}, 422, "'cup' is not a known parameter"),
    ({"features": [ROW], "known": {"cost": [1, 2]}}, 422, "'cost' is not a known parameter"),
    ({"features": [ROW], "known": {"cap": [1]}}, 422, "known 'cap' must have 2 entries, got 1"),
    ({"features": [ROW], "known": [1]}, 422, "known must be an object"),
    ({"features": [ROW] * 21}, 413, "may have 20 rows, this one has 21"),
    ("[" + " " * 5000 + "]", 413, "may have 4000 bytes"),
]


@pytest.mark.parametrize(("body", "code", "message"), BAD)
def test_bad_requests_are_refused_with_the_reason(server: Server, body: Any, code: int, message: str):
    status, found = server.ask(body)
    assert status == code and message in found["error"]


def test_a_body_of_unknown_length_is_limited(server: Server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    chunks = (b" " * 1000 for _ in range(10))
    connection.request(
        "POST", "/decide", body=chunks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
    )
    assert connection.getresponse().status == 413
    connection.close()


def test_a_client_that_hangs_up_is_no_error_of_the_server():
    async def ask() -> list[Any]:
        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/decide", "headers": [], "query_string": b""}
        await service.app()(scope, receive, send)
        return sent

    service = serve.Service(POLICY, time_limit=1.0, max_rows=1, max_bytes=10)
    answer = asyncio.run(ask())
    assert answer[0]["status"] == 400 and b"hung up" in answer[1]["body"]
    assert service.metrics.answers == {400: 1}


def test_health_policy_and_metrics(server: Server):
    assert server.ask(path="/health", method="GET") == (200, {"status": "ready"})
    code, found = server.ask(path="/policy", method="GET")
    assert code == 200 and found["features"] == {"names": NAMES, "shape": [3]}
    assert (
        found["known"] == {"cap": [2]} and found["decisions"] == {"x": [2]} and found["limits"]["rows"] == 20
    )
    assert server.ask(path="/decide", method="GET")[0] == 405
    assert server.ask({}, path="/else")[0] == 404

    def counts() -> dict[str, float]:
        text = server.ask(path="/metrics", method="GET")[1]
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    before = counts()
    server.ask({"features": X[:2].tolist(), "known": {"cap": [[0.6, 0.6], [0.1, 0.1]]}})
    server.ask("{")
    after = counts()
    rise = {name: after[name] - before.get(name, 0.0) for name in after}
    assert rise['decigrad_requests_total{code="200"}'] == rise['decigrad_requests_total{code="422"}'] == 1
    assert rise["decigrad_rows_total"] == 2 and rise["decigrad_failed_rows_total"] == 1
    assert rise["decigrad_request_seconds_count"] == rise['decigrad_request_seconds_bucket{le="+Inf"}'] == 2
    buckets = [v for n, v in after.items() if "_bucket" in n]
    assert buckets == sorted(buckets) and after["decigrad_running_requests"] == 0


def test_many_at_once_get_their_own_answers(server: Server):
    expected = POLICY.decide(X).x["x"]
    found: dict[int, Any] = {}

    def ask(i: int) -> None:
        found[i] = server.ask({"features": [X[i].tolist()]})[1]["decisions"]["x"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[i] == [expected[i].tolist()] for i in range(9))


def test_sigterm_finishes_what_is_running(server: Server):
    """The request is half sent when the signal comes; the rest follows, and it is answered."""
    body = json.dumps({"features": X.tolist()}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        head = f"POST /decide HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode() + body[:20])
        while "decigrad_running_requests 1" not in server.ask(path="/metrics", method="GET")[1]:
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert server.process.poll() is None
        client.sendall(body[20:])
        answer = b""
        while part := client.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200")
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert np.array(found["decisions"]["x"]).tobytes() == POLICY.decide(X).x["x"].tobytes()
    out, err = server.process.communicate(timeout=60)
    assert server.process.returncode == 0 and "Stopped." in out and err == ""


# ------------------------------------------------------------------------------------- within this process


def test_what_runs_over_gets_the_fallback_or_is_given_up(monkeypatch: pytest.MonkeyPatch):
    """One slow oracle: the first request takes the time, the second waits behind it."""
    from starlette.requests import Request

    def slow(costs: np.ndarray) -> np.ndarray:
        time.sleep(0.3)
        return np.eye(2)[costs.argmin(1)]

    monkeypatch.setattr(serve, "GRACE", 0.25)
    monkeypatch.setattr(serve, "READ_SECONDS", 0.1)
    m = dg.Model()
    x, c = m.continuous("x", shape=2, lb=0.0), m.parameter("cost", shape=2)
    m.minimize(dg.sum(c * x))
    policy = Policy(POLICY.predictor, dg.DecisionLayer(m, solver=dg.Oracle(slow)), fallback={"x": [0, 1]})
    policy.warm_up()
    service = serve.Service(policy, time_limit=0.2, max_rows=10, max_bytes=1000)

    async def ask(body: bytes, late: float = 0.0) -> tuple[int, Any]:
        async def receive() -> Any:
            await asyncio.sleep(late)
            return {"type": "http.request", "body": body, "more_body": False}

        answer = await service._decide(Request({"type": "http", "method": "POST", "headers": []}, receive))
        return answer.status_code, json.loads(answer.body)

    async def several() -> Any:
        body = json.dumps({"features": [ROW, ROW]}).encode()
        first = asyncio.create_task(ask(body))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(ask(body))
        return await first, await second, await ask(body, late=1.0)

    (one, first), (two, second), (three, third) = asyncio.run(several())
    assert one == 200 and first["fallback"] == [False, True] and first["status"] == ["OPTIMAL", "TIME_LIMIT"]
    assert two == 200 and second["fallback"] == [True, True] and second["decisions"]["x"] == [[0.0, 1.0]] * 2
    assert three == 408 and "did not arrive" in third["error"]

    async def hopeless() -> Any:
        monkeypatch.setattr(serve, "GRACE", 0.0)
        return await ask(json.dumps({"features": [ROW]}).encode())

    code, found = asyncio.run(hopeless())
    assert code == 504 and "no decision within" in found["error"]
    monkeypatch.setattr(serve, "WAITING", 0)
    code, found = asyncio.run(ask(b"{}"))
    assert code == 503 and "waiting" in found["error"]


def test_an_address_that_others_reach_is_warned_about(monkeypatch: pytest.MonkeyPatch):
    import uvicorn

    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    said: list[str] = []
    warned: list[str] = []
    limits: Any = {"time_limit": 1.0, "max_rows": 1, "max_bytes": 1, "say": said.append}
    limits["warn"] = warned.append
    serve.run(POLICY, host="0.0.0.0", port=0, **limits)
    assert "no authentication" in warned[0] and "http://0.0.0.0:" in said[0]
    serve.run(POLICY, host="localhost", port=0, **limits)
    assert len(warned) == 1
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(dg.ModelError, match="in use"):
        serve.run(POLICY, host="127.0.0.1", port=taken.getsockname()[1], **limits)

    def unknown(*arguments: Any, **options: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(dg.ModelError, match="there is no address 'nowhere': Name or service not known"):
        serve.run(POLICY, host="nowhere", port=0, **limits)
