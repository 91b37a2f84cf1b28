"""Faults of a real server: `q3e-local serve -m demo` in one process, its worker in another.

Expected vectors are the library's. Faults that need an injected engine are in workers/, those of sockets and of a
single client in http/.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import psutil
import pytest
from command import PROGRAM, expected, records, run
from server_process import PATIENCE_S, Running, in_background, running_server, workers_of
from waiting import until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

WORDS = ["river", "stone", "bread", "music", "paper", "glass", "winter", "horse"]
WORDS += ["garden", "letter", "window", "market", "silver", "forest", "candle"]
LONG = "a text that takes a second or more " * 1000  # about 8,000 tokens


@contextmanager
def serving(home: Path, *options: str) -> Iterator[Running]:
    """A server on a free port, the demo model loaded."""
    env = {"Q3E_HOME": str(home), "HF_HUB_CACHE": str(home)}
    program = [*PROGRAM, "serve", "-m", "demo", "--port", "0", "--no-cache", *options]
    with running_server(env=env, program=program) as running:
        running.wait_for("try: ", 60)
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("home")) as running:
        yield running


@dataclass(frozen=True)
class Library:
    """Texts of mixed sizes, each of other words, and the library's vectors of them."""

    texts: list[str]
    vectors: np.ndarray


@pytest.fixture(scope="module")
def library() -> Library:
    chance = random.Random(1)
    sizes = [3] * 300 + [30] * 150 + [200] * 30 + [700] * 5  # words; the last 5 texts are longer than a batch
    texts = [" ".join(chance.choices(WORDS, k=size)) + f" {place}" for place, size in enumerate(sizes)]
    vectors = expected(texts).vectors
    # Were two vectors equal, the test could not see them swapped.
    assert (vectors @ vectors.T - 2 * np.eye(len(texts))).max() < 0.9995
    return Library(texts, vectors)


def worker_of(running: Running) -> psutil.Process:
    """The process that has the model."""
    (worker,) = workers_of(running.process.pid)
    return worker


def metric(running: Running, name: str) -> float:
    text = running.ask("GET", "/metrics")[2].decode()
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[-1])


def loaded(running: Running) -> dict[str, datetime]:
    """The models that /api/ps shows, and until when each is kept after its last request."""
    models = orjson.loads(running.ask("GET", "/api/ps")[2])["models"]
    return {model["name"]: datetime.fromisoformat(model["expires_at"]) for model in models}


@contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """Stop a process in the middle of its work."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def assert_is(answer: tuple[int, dict[str, str], bytes], vector: np.ndarray) -> None:
    """The answer of Ollama's route has this vector."""
    assert answer[0] == 200
    assert np.float32(orjson.loads(answer[2])["embeddings"][0]) @ vector > 0.9999


def assert_answers(running: Running, library: Library) -> None:
    """A request now is answered, and right."""
    assert_is(running.embed(library.texts[0]), library.vectors[0])


def begin_long(running: Running, path: str = "/v1/embeddings") -> Future[Any]:
    """A request that the worker computes for a second or more, and is at when this returns."""
    worker = worker_of(running)
    before = worker.cpu_times().user
    future = in_background(running.ask, "POST", path, {"model": "demo", "input": f"{time.monotonic()} {LONG}"})
    until(lambda: worker.cpu_times().user > before + 0.3)
    return future


class Client:
    """A client that sends one to forty texts to Ollama's route or OpenAI's, and checks each answer."""

    def __init__(self, http: httpx.AsyncClient, library: Library, number: int) -> None:
        self._http, self._library, self._chance = http, library, random.Random(number)
        self.n_texts = 0  # of accepted requests
        self.statuses: Counter[int] = Counter()

    async def ask(self) -> int:
        """The status of another request. Fails on a wrong answer."""
        n_texts = self._chance.choices((1, 3, 40), (80, 15, 5))[0]
        places = self._chance.choices(range(len(self._library.texts)), k=n_texts)
        path = self._chance.choice(("/api/embed", "/v1/embeddings"))
        texts = [self._library.texts[place] for place in places]
        answer = await self._http.post(path, content=orjson.dumps({"model": "demo", "input": texts}))
        self.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            self.n_texts += n_texts
            found = orjson.loads(answer.content)
            rows = found["embeddings"] if path == "/api/embed" else [item["embedding"] for item in found["data"]]
            vectors = np.float32(rows)
            assert vectors.shape == (n_texts, self._library.vectors.shape[1])
            assert (vectors * self._library.vectors[places]).sum(axis=1).min() > 0.9999
        else:
            error = orjson.loads(answer.content)["error"]
            assert answer.status_code == (503 if path == "/api/embed" else 429), error
            assert isinstance(error, str) if path == "/api/embed" else error["message"]
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        return answer.status_code


def test_of_500_clients_at_once_each_gets_its_own_vectors_or_is_asked_to_come_back(
    tmp_path: Path, library: Library
) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)

    async def ask_until(end: float, client: Client) -> None:
        while time.monotonic() < end:
            if await client.ask() != 200:
                await asyncio.sleep(1)

    async def all_of(url: str) -> list[Client]:
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, limits=limits) as http:
            clients = [Client(http, library, number) for number in range(500)]
            end = time.monotonic() + 3
            await asyncio.gather(*(ask_until(end, client) for client in clients))
        return clients

    with serving(tmp_path, "--max-queue", "200") as running:
        clients = asyncio.run(all_of(running.url))
        statuses = sum((client.statuses for client in clients), Counter())
        assert statuses[200] > 100
        assert statuses[429] > 0
        assert statuses[503] > 0
        # The server counted the same: nothing is lost, nothing counted twice, no place in the queue kept.
        assert metric(running, "q3e_texts_total") == sum(client.n_texts for client in clients)
        assert metric(running, "q3e_refused_total") == statuses[429] + statuses[503]
        assert metric(running, "q3e_queue_length") == 0
        assert metric(running, "q3e_worker_restarts_total") == 0
        assert_answers(running, library)
        worker = worker_of(running)
        assert running.end() == 0
        assert not worker.is_running()


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
def test_a_worker_killed_at_work_fails_the_request_it_computed_alone(
    server: Running, library: Library, path: str
) -> None:
    restarts = metric(server, "q3e_worker_restarts_total")
    at_work, killed = begin_long(server, path), worker_of(server)
    other = f"behind it: {LONG}"  # long texts are computed one by one
    behind = in_background(server.embed, other)
    until(lambda: metric(server, "q3e_queue_length") == 1)
    killed.kill()
    status, _, body = at_work.result(PATIENCE_S)
    error = orjson.loads(body)["error"]
    assert status == 500
    message = error if path == "/api/embed" else error["message"]
    assert f"(pid {killed.pid}) was ended by SIGKILL" in message
    if path == "/v1/embeddings":
        assert error["type"] == "server_error"
    assert_is(behind.result(PATIENCE_S), expected([other]).vectors[0])
    assert_answers(server, library)
    assert metric(server, "q3e_worker_restarts_total") == restarts + 1
    server.wait_for(f"(pid {killed.pid}) was ended by SIGKILL")


@pytest.mark.parametrize("at_once", [True, False])
def test_a_worker_killed_while_idle_is_back_for_the_next_request(
    server: Running, library: Library, at_once: bool
) -> None:
    restarts, deaths = metric(server, "q3e_worker_restarts_total"), metric(server, "q3e_worker_deaths_total")
    killed = worker_of(server)
    killed.kill()
    if not at_once:
        until(lambda: not loaded(server))
        assert orjson.loads(server.ask("GET", "/health")[2])["loaded"] == []
        assert metric(server, "q3e_loaded_models") == 0
        how = "was ended by SIGKILL (the system ran out of memory, or someone ended it)"
        server.wait_for(f"(pid {killed.pid}) {how}")
    assert_answers(server, library)
    assert worker_of(server).pid != killed.pid
    assert list(loaded(server)) == ["demo:latest"]
    assert metric(server, "q3e_worker_restarts_total") == restarts + 1
    assert metric(server, "q3e_worker_deaths_total") == deaths + 1
    loaded_again = [line for line in server.lines if "loaded demo again" in line][-1]
    assert f"(pid {killed.pid}) was ended by SIGKILL" in loaded_again


def test_a_client_that_goes_away_frees_its_place(tmp_path: Path, library: Library) -> None:
    # Long texts are computed one by one.
    body = orjson.dumps({"model": "demo", "input": f"of a client that leaves: {LONG}"})
    request = b"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with serving(tmp_path, "--max-queue", "1") as running:
        at_work = begin_long(running)
        gone = running.socket()
        gone.sendall(request)
        until(lambda: metric(running, "q3e_queue_length") == 1)
        with frozen(worker_of(running)):  # so that nothing but the client's leaving can free the place
            status, headers, _ = running.embed(library.texts[0])
            assert (status, headers["retry-after"].isdigit()) == (503, True)
            gone.close()
            until(lambda: metric(running, "q3e_queue_length") == 0)
        assert_answers(running, library)
        assert at_work.result(PATIENCE_S)[0] == 200
        assert metric(running, "q3e_texts_total") == 2  # the text of the client that left was not computed


def test_a_huge_text_has_the_vector_of_its_beginning_and_holds_up_nobody(server: Running, library: Library) -> None:
    text = "the quick brown fox and so on " * 400_000  # 12 MB
    body = {"model": "demo", "input": text, "options": {"num_ctx": 300}}
    huge = in_background(server.ask, "POST", "/api/embed", body)
    while not huge.done():
        assert_answers(server, library)
    assert huge.result()[1]["x-q3e-truncated"] == "0"
    assert_is(huge.result(), expected([text[:20_000]], truncate=True, max_tokens=300).vectors[0])
    status, _, answer = server.ask("POST", "/api/embed", body | {"truncate": False})
    assert status == 400
    assert b"the input length exceeds the context length" in answer


def test_stop_waits_until_a_model_at_work_is_gone(server: Running, library: Library) -> None:
    assert_answers(server, library)
    at_work, worker = begin_long(server), worker_of(server)
    with frozen(worker):
        stopping = in_background(run, "stop", "demo-query", "--server", server.url)
        until(lambda: loaded(server)["demo:latest"] < datetime.now(UTC) + timedelta(minutes=1))  # it is to be stopped
        assert not stopping.done()
    stopped = stopping.result(PATIENCE_S)
    assert (stopped.exit_code, stopped.stdout) == (0, "demo-query is unloaded\n")
    assert not worker.is_running()
    assert not loaded(server)
    assert at_work.result(PATIENCE_S)[0] == 200
    again = run("stop", "demo-query", "--server", server.url)
    assert (again.exit_code, again.stdout) == (0, "demo-query was not loaded\n")
    assert run("stop", "nobody", "--server", server.url).exit_code == 1
    assert_answers(server, library)


def test_embed_on_a_server_takes_a_query_name_at_its_word(server: Running, library: Library) -> None:
    arguments = ("embed", "-m", "demo-query", "--text", library.texts[0], "--server", server.url)
    (found,) = records(run(*arguments).stdout)
    answer = expected(library.texts[:1], kind="query")
    assert found["space"] == answer.space
    assert np.float32(found["embedding"]) @ answer.vectors[0] > 0.9999
