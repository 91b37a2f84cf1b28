"""A server on the real service, and requests that are made of a server's /openapi.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from fake_service import served
from hypothesis import HealthCheck, given, settings

from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings


@contextmanager
def served_locally(**settings: Any) -> Iterator[httpx.Client]:
    """A client of a server on the real service, whose models are in other processes."""
    with served(LocalService(ServerSettings(**settings)), **settings) as client:
        yield client


def answers_by_schema(http: httpx.Client, n_examples: int, only: str | None = None) -> list[httpx.Response]:
    """The answers to requests that are made of /openapi.json: examples of each route, or of `only` a path."""
    import schemathesis  # takes a second, which most tests with a server need not spend

    schema = schemathesis.openapi.from_dict(http.get("/openapi.json").json())
    answers = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if only not in (None, operation.path):
            continue

        @settings(max_examples=n_examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def call(case: Any) -> None:
            request = case.as_transport_kwargs(base_url=str(http.base_url).rstrip("/"))
            body = request.get("json")
            # Python's json writes lone surrogates, which httpx's encoder refuses.
            content = json.dumps(body).encode() if body is not None else request.get("data")
            answers.append(
                http.request(request["method"], request["url"], params=request.get("params"), content=content)
            )

        call()
    return answers
