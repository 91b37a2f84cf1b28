"""Tools for assistants, by the Model Context Protocol (https://modelcontextprotocol.io): over stdio, and at /mcp.

Both transports share the tools of `tools.py`, which know nothing of the protocol. The SDK, `mcp`, is imported by the
modules of this folder alone, and comes with the extra of the same name.
"""

from __future__ import annotations

from importlib.util import find_spec

from q3e_local.errors import MissingPackageError


def need_sdk() -> None:
    """Raise MissingPackageError where the SDK of the protocol is not installed."""
    if find_spec("mcp") is None:
        raise MissingPackageError("answering assistants", "mcp", "mcp")
