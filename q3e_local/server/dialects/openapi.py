"""/openapi.json, made of the routes and of the bodies that they declare.

Knows OpenAPI 3.1; nothing of what the routes do.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Scope

from q3e_local.server.dialects.fields import Body

_ANY_JSON: dict[str, Any] = {"application/json": {"schema": {}}}


class DocumentedRoute(Route):
    """A route with its part of the document; a route without a summary has none."""

    def __init__(
        self,
        path: str,
        handler: Callable[[Request], Awaitable[Response]] | ASGIApp,
        methods: tuple[str, ...],
        dialect: str = "",
        summary: str = "",
        body: Body | None = None,
    ) -> None:
        super().__init__(path, handler, methods=methods, include_in_schema=bool(summary))
        self.documented_methods = methods  # Starlette adds HEAD to GET
        self.dialect, self.summary, self.body = dialect, summary, body

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the route serves the request, whose scope then has the route, for the log and the metrics."""
        match, child_scope = super().matches(scope)
        return match, {**child_scope, "route": self}


def document(routes: Iterable[DocumentedRoute], title: str, version: str, description: str) -> dict[str, Any]:
    """The document of these routes, in their order."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.include_in_schema:
            of_path = paths.setdefault(route.path_format, {})
            of_path |= {method.lower(): _operation(route, method) for method in route.documented_methods}
    info = {"title": title, "description": description, "version": version}
    return {"openapi": "3.1.0", "info": info, "paths": paths}


def _operation(route: DocumentedRoute, method: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [route.dialect],
        "summary": route.summary,
        "operationId": re.sub(r"\W", "_", f"{route.name}{route.path_format}_{method.lower()}"),
        "responses": {"200": {"description": "Successful Response", "content": _ANY_JSON}},
    }
    if route.param_convertors:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in route.param_convertors
        ]
    if route.body is not None:
        content: dict[str, Any] = {"schema": route.body.schema()}
        if route.body.example is not None:
            content["example"] = route.body.example
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    return operation
