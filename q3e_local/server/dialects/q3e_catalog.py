"""/q3e/catalog: the models that can be pulled, for the page.

Knows the cards of models and which are here; pulling one is /api/pull's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from q3e_local.models import catalog, installed
from q3e_local.server.dialects import names
from q3e_local.server.dialects.q3e import answer_failure
from q3e_local.server.dialects.routes import Routes, json_response


def routes() -> Routes:
    """The route of the catalog."""
    routes = Routes("q3e-local", answer_failure)

    @routes.get("/q3e/catalog", "The models that can be pulled, and which of them are on this machine")
    async def listed(request: Request) -> Response:
        return json_response({"models": await asyncio.to_thread(_models)})

    return routes


def _models() -> list[dict[str, Any]]:
    here = {model.name for model in installed.installed()}
    return [
        {
            "name": card.tag(file.quantization),
            "kind": names.capabilities(card.kind)[0],
            "description": card.description,
            "license": card.license,
            "parameters": card.sizes.parameters,
            "quantization": file.quantization.upper(),
            # A file that is quantized here comes as the file that it is made of.
            "download_bytes": (card.origin(file) or file).size_bytes,
            "is_here": card.tag(file.quantization) in here,
        }
        for card, file in catalog.files()
        if not file.is_converted and not card.is_bundled
    ]
