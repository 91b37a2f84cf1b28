"""The page at `/ui`, and at `/` for a browser: one file that asks nothing of any other server.

Knows the file and the headers that keep a browser from running, loading or framing anything else. The page's sources
are in the folder page/ of the repository; page/build.mjs makes the file from them.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re
from functools import cache

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

PATH = "/ui"
ROOT = "/"


class _Page(Route):
    """The page at one path. At the root, clients that do not ask for HTML get what another route answers there."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is Match.NONE or not is_page(scope):
            return Match.NONE, {}
        return match, {**child_scope, "route": self}


def page_routes() -> list[Route]:
    """The page at both of its paths. These routes must stand before others at `/`."""

    async def page(request: Request) -> Response:
        return HTMLResponse(page_html(), headers=page_headers())

    return [_Page(path, page, methods=["GET"]) for path in (PATH, ROOT)]


def is_page(scope: Scope) -> bool:
    """Whether a request is for the page: at the root where its Accept header names HTML, as browsers' alone does."""
    if scope["method"] not in ("GET", "HEAD"):
        return False
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
    return scope["path"] == PATH or (scope["path"] == ROOT and b"text/html" in accepted.lower())


@cache
def page_html() -> str:
    return importlib.resources.files("q3e_local.server.http").joinpath("page.html").read_text(encoding="utf-8")


@cache
def page_headers() -> dict[str, str]:
    """Headers by which nothing but the page's own script and style is run, and nothing but this server is asked."""
    scripts, styles = (_sources(name, page_html()) for name in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "x-frame-options": "DENY",  # for browsers that do not know frame-ancestors
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-cache",  # after an update, the old page must not meet the new server
        "vary": "Accept",
    }


def _sources(element: str, html: str) -> str:
    """The hashes of all elements of this name, as a policy names them. https://www.w3.org/TR/CSP3/#framework-directive-source-list"""
    contents = re.findall(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in contents)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
