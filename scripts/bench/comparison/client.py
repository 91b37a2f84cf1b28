"""Clients of `/v1/embeddings`, the same for every server: each sends a text and waits for its answer.

A request has a connection of its own, as curl's. When connections stay open, llama-server's threads stay with those
they have, and now and then a client waits seconds for one: that would be measured instead of embedding. Answers are
kept as bytes and read afterwards, so that reading them is not measured either.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Answered:
    """The bodies in the order of the requests, and how long it all and each of them took."""

    seconds: float
    bodies: list[bytes]
    latencies: list[float]


def is_ready(port: int) -> bool:
    """Whether `/health` answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def ask(port: int, bodies: Sequence[bytes], n_clients: int) -> Answered:
    """Send all requests; each client takes the next one when it has its answer."""
    return asyncio.run(_ask(port, bodies, n_clients))


async def _ask(port: int, bodies: Sequence[bytes], n_clients: int) -> Answered:
    answers: list[bytes] = [b""] * len(bodies)
    latencies = [0.0] * len(bodies)
    left = iter(range(len(bodies)))

    async def client() -> None:
        for number in left:
            began = time.perf_counter()
            answers[number] = await _one(port, bodies[number])
            latencies[number] = time.perf_counter() - began

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(n_clients)))
    return Answered(time.perf_counter() - began, answers, latencies)


async def _one(port: int, body: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 28)
    head = (
        "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    )
    try:
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"^content-length: *(\d+)", answer, re.MULTILINE | re.IGNORECASE)
        if length is None:
            raise RuntimeError(f"an answer without a length: {answer}")
        content = await reader.readexactly(int(length[1]))
    finally:
        writer.close()
    if " 200 " not in answer.splitlines()[0]:
        raise RuntimeError(
            f"the server answered {answer.splitlines()[0]}: {content[:500].decode('utf-8', 'replace')}"
        )
    return content


def vectors_of(bodies: Sequence[bytes]) -> tuple[Any, int]:
    """All vectors in order, and the tokens the server says it read."""
    rows, n_tokens = [], 0
    for body in bodies:
        answer = json.loads(body)
        n_tokens += answer["usage"]["prompt_tokens"]
        for one in sorted(answer["data"], key=lambda one: int(one["index"])):
            rows.append(np.frombuffer(base64.b64decode(one["embedding"]), "<f4"))
    return np.stack(rows), n_tokens
