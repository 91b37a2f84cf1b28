"""docs/assistants.md: what is to be copied from it is sound, and starts the command that there is."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from typing import Any

import pytest
from paths import ROOT

from q3e_local.cli.commands.mcp import mcp
from q3e_local.server.assistants import http, schemas, tools
from q3e_local.server.assistants.tools import Tools
from q3e_local.server.local.indexes import Indexes
from q3e_local.server.settings import ServerSettings

PAGE = (ROOT / "docs" / "assistants.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def servers(settings: dict[str, Any]) -> dict[str, Any]:
    """The one server that these settings of an assistant have."""
    ((_, named),) = settings.items()
    return named["notes"]


@pytest.mark.parametrize("block", [*map(json.loads, blocks("json")), *map(tomllib.loads, blocks("toml"))])
def test_settings_start_the_command_or_name_the_route(block: dict[str, Any]) -> None:
    server = servers(block)
    if "url" in server:
        assert server["url"].endswith(f":11434{http.PATH}")
        return
    assert (server["command"], server["args"][0]) == ("q3e-local", "mcp")
    mcp.make_context("mcp", server["args"][1:])  # raises for arguments that the command does not have


def test_commands_in_a_shell_start_the_command_or_name_the_route() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if " mcp add " in line]
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line)
        if "--" in words:
            assert words[words.index("--") + 1 :][:2] == ["q3e-local", "mcp"]
        else:
            assert f"http://127.0.0.1:11434{http.PATH}" in words


def test_the_page_has_each_tool_with_all_its_arguments_and_limits() -> None:
    settings = ServerSettings()
    with Indexes(settings) as indexes:
        known = Tools(None, indexes, settings).all
    for tool in known:
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{tool.name}` |")]
        named = set(re.findall(r"`(\w+)`", row))
        assert set(tool.takes.fields) <= named, tool.name
    assert f"({schemas.LIMIT}; {schemas.LIMIT_MAX} at most)" in PAGE
    assert f"for {tools.RERANK_S:.0f} seconds at most" in PAGE
