"""A page that lists the routes, from /openapi.json's own content. It needs no network and runs no script.

Knows OpenAPI; nothing of what the routes do.
"""

from __future__ import annotations

from html import escape
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:.6rem;border:1px solid #8886}"
    "h3{margin-bottom:0}p{margin:.2rem 0}"
)


def add_docs(app: FastAPI) -> None:
    """Serve the page at /docs."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(_page(app.openapi()))


def _page(schema: dict[str, Any]) -> str:
    info = schema["info"]
    by_tag: dict[str, list[str]] = {}
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            by_tag.setdefault(route["tags"][0], []).append(_route(method.upper(), path, route))
    parts = [f"<h2>{escape(tag)}</h2>{''.join(routes)}" for tag, routes in by_tag.items()]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f'<p>{escape(info["description"])}</p><p>Schema: <a href="/openapi.json">/openapi.json</a></p>'
        + "".join(parts)
    )


def _route(method: str, path: str, route: dict[str, Any]) -> str:
    content = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    example = ""
    if "example" in content:
        body = orjson.dumps(content["example"]).decode()
        example = f"<pre>curl -X {method} http://127.0.0.1:11434{path} -d {escape(repr(body), quote=False)}</pre>"
    fields = ", ".join(f"<code>{escape(name)}</code>" for name in content.get("schema", {}).get("properties", {}))
    return (
        f"<h3><code>{method} {escape(path)}</code></h3><p>{escape(route.get('summary', ''))}</p>"
        + (f"<p>Fields: {fields}</p>" if fields else "")
        + example
    )
