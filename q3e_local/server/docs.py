"""A page that lists the routes, from /openapi.json's own content, with lines to try them on this very server.

It needs no network and runs no script. Knows OpenAPI; nothing of what the routes do.
"""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from html import escape
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from q3e_local.catalog import DEFAULT_MODEL
from q3e_local.server.announce import key_variable
from q3e_local.server.naming import to_try
from q3e_local.server.settings import ServerSettings

_EXAMPLES = (DEFAULT_MODEL, "demo")  # the schema's, which is the same on every machine

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:.6rem;border:1px solid #8886}"
    "h3{margin-bottom:0}p{margin:.2rem 0}"
)


def add_docs(app: FastAPI, settings: ServerSettings) -> None:
    """Serve the page at /docs."""

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        model = await asyncio.to_thread(to_try, settings)
        # The address that reached this page reaches the routes too.
        return HTMLResponse(_page(app.openapi(), _Here(_curl(settings), str(request.base_url).rstrip("/"), model)))


@dataclass(frozen=True)
class _Here:
    """What a line to try needs to work on this server."""

    curl: str
    url: str
    model: str


def _curl(settings: ServerSettings) -> str:
    parts = ["curl"]
    if settings.unix_socket is not None:
        parts.append(f"--unix-socket {shlex.quote(str(settings.unix_socket))}")
    if settings.api_keys:
        parts.append(f'-H "Authorization: Bearer {key_variable(settings)}"')
    return " ".join(parts)


def _page(schema: dict[str, Any], here: _Here) -> str:
    info = schema["info"]
    by_tag: dict[str, list[str]] = {}
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            by_tag.setdefault(route["tags"][0], []).append(_route(method.upper(), path, route, here))
    parts = [f"<h2>{escape(tag)}</h2>{''.join(routes)}" for tag, routes in by_tag.items()]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f'<p>{escape(info["description"])}</p><p>Schema: <a href="/openapi.json">/openapi.json</a></p>'
        + "".join(parts)
    )


def _route(method: str, path: str, route: dict[str, Any], here: _Here) -> str:
    content = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    properties = content.get("schema", {}).get("properties", {})
    example = ""
    if "example" in content:
        body = orjson.dumps(_served(content["example"], properties, here.model)).decode()
        line = f"{here.curl} -X {method} {shlex.quote(here.url + path)} -d {shlex.quote(body)}"
        example = f"<pre>{escape(line, quote=False)}</pre>"
    fields = ", ".join(f"<code>{escape(name)}</code>" for name in properties)
    return (
        f"<h3><code>{method} {escape(path)}</code></h3><p>{escape(route.get('summary', ''))}</p>"
        + (f"<p>Fields: {fields}</p>" if fields else "")
        + example
    )


def _served(example: dict[str, Any], properties: dict[str, Any], model: str) -> dict[str, Any]:
    """The example with a model that is here. One that is named so that nothing happens to any stays."""
    shown = {"model": model, **example} if "model" in properties else dict(example)
    return {
        key: model if key in ("model", "source") and value in _EXAMPLES else value for key, value in shown.items()
    }
