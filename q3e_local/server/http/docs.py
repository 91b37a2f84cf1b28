"""/openapi.json, and a page that lists its routes, with lines to try them on this very server.

The page needs no network and runs no script. The document's texts are Markdown. Knows OpenAPI; nothing of what the
routes do.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from q3e_local.models.catalog import DEFAULT_MODEL
from q3e_local.models.kinds import DEFAULT_RERANKER
from q3e_local.server.http.announce import curl
from q3e_local.server.served_names import to_try
from q3e_local.server.settings import ServerSettings

_EXAMPLES = (DEFAULT_MODEL, "demo", DEFAULT_RERANKER)  # the schema's, which is the same on every machine

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "code,pre{font:14px/1.4 ui-monospace,monospace}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;padding:.6rem;border:1px solid #8886}"
    "h3{margin:1.6rem 0 0}p{margin:.2rem 0}table{border-collapse:collapse;margin:.4rem 0;font-size:.9rem}"
    "td{padding:.1rem 1rem .1rem 0;vertical-align:top}td:nth-child(2){color:GrayText;max-width:18rem}"
)


def docs_routes(document: dict[str, Any], settings: ServerSettings) -> list[Route]:
    """Serve the document at /openapi.json and the page at /docs."""

    async def docs(request: Request) -> Response:
        model = await asyncio.to_thread(to_try, settings)
        reranker = await asyncio.to_thread(to_try, settings, "reranker")
        # The address in the request for this page reaches the routes too.
        return HTMLResponse(
            _page(document, _Here(curl(settings), str(request.base_url).rstrip("/"), model, reranker))
        )

    async def openapi(request: Request) -> Response:
        return JSONResponse(document)

    return [Route("/openapi.json", openapi), Route("/docs", docs)]


@dataclass(frozen=True)
class _Here:
    """What a line to try needs to work on this server."""

    curl: str
    url: str
    model: str
    reranker: str

    def named(self, example: str) -> str:
        """The model that takes the place of an example's."""
        return self.reranker if example == DEFAULT_RERANKER else self.model


def _page(schema: dict[str, Any], here: _Here) -> str:
    # Imported for the page alone: a server starts without it.
    from markdown_it import MarkdownIt

    inline = MarkdownIt("commonmark", {"html": False}).renderInline
    info = schema["info"]
    by_tag: dict[str, list[str]] = {}
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            by_tag.setdefault(route["tags"][0], []).append(_route(method.upper(), path, route, here, inline))
    parts = [f"<h2>{escape(tag)}</h2>{''.join(routes)}" for tag, routes in by_tag.items()]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f'<p>{inline(info["description"])}</p><p>Schema: <a href="/openapi.json">/openapi.json</a></p>'
        + "".join(parts)
    )


def _route(method: str, path: str, route: dict[str, Any], here: _Here, inline: Callable[[str], str]) -> str:
    content = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = content.get("schema", {})
    properties = schema.get("properties", {})
    example = ""
    if "example" in content:
        body = orjson.dumps(_served(content["example"], properties, here)).decode()
        line = f"{here.curl} -X {method} {shlex.quote(here.url + path)} -d {shlex.quote(body)}"
        example = f"<pre>{escape(line, quote=False)}</pre>"
    required = schema.get("required", ())
    fields = [_field(name, field, name in required, inline) for name, field in properties.items()]
    return (
        f"<h3><code>{method} {escape(path)}</code></h3><p>{inline(route.get('summary', ''))}</p>"
        + (f"<table>{''.join(fields)}</table>" if fields else "")
        + example
    )


def _field(name: str, schema: dict[str, Any], is_required: bool, inline: Callable[[str], str]) -> str:
    """A row of a route's table: the field, what it may be, and what it does."""
    parts = ["Required"] if is_required else []
    parts += [schema["description"]] if "description" in schema else []
    parts += [f"Default `{orjson.dumps(schema['default']).decode()}`"] if "default" in schema else []
    return f"<tr><td><code>{escape(name)}</code><td>{inline(_kind(schema))}<td>{inline('. '.join(parts))}"


def _kind(schema: dict[str, Any]) -> str:
    """The values of a field in words; values that a client writes as they stand are Markdown code."""
    if "enum" in schema:
        written = (each if isinstance(each, str) else orjson.dumps(each).decode() for each in schema["enum"])
        return ", ".join(f"`{each}`" for each in written)
    if "oneOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["oneOf"])))
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}" if schema.get("items") else "list"
    return str(schema.get("type", "any"))


def _served(example: dict[str, Any], properties: dict[str, Any], here: _Here) -> dict[str, Any]:
    """The example with a model that is here. The name `no-such-model`, of a route that deletes, stays."""
    shown = {"model": here.model, **example} if "model" in properties else dict(example)
    return {
        key: here.named(value) if key in ("model", "source") and value in _EXAMPLES else value
        for key, value in shown.items()
    }
