"""The pages on assistants: what is to be copied from them is sound, and starts the command that there is."""

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

ENGLISH, CHINESE = (
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("assistants.md", "assistants.zh-CN.md")
)


def blocks(language: str, *pages: str) -> list[str]:
    found = [re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE) for page in pages]
    return [block for blocks in found for block in blocks]


JSON, TOML = blocks("json", ENGLISH, CHINESE), blocks("toml", ENGLISH)


def servers(settings: dict[str, Any]) -> dict[str, Any]:
    """The one server that these settings of an assistant have."""
    ((_, named),) = settings.items()
    return named["notes"]


@pytest.mark.parametrize("block", [*map(json.loads, JSON), *map(tomllib.loads, TOML)])
def test_settings_start_the_command_or_name_the_route(block: dict[str, Any]) -> None:
    server = servers(block)
    if "url" in server:
        assert server["url"].endswith(f":11434{http.PATH}")
        return
    assert (server["command"], server["args"][0]) == ("q3e-local", "mcp")
    mcp.make_context("mcp", server["args"][1:])  # raises for arguments that the command does not have


@pytest.mark.parametrize(("page", "n_lines"), [(ENGLISH, 4), (CHINESE, 6)], ids=["en", "zh"])
def test_commands_in_a_shell_start_the_command_or_name_the_route(page: str, n_lines: int) -> None:
    lines = [line for block in blocks("sh", page) for line in block.splitlines() if " mcp add " in line]
    assert len(lines) == n_lines
    for line in lines:
        words = shlex.split(line)
        if "q3e-local" in words:
            assert words[words.index("q3e-local") :][:2] == ["q3e-local", "mcp"]
            assert words[0] == "qwen" or words[words.index("q3e-local") - 1] == "--"
        else:
            assert f"http://127.0.0.1:11434{http.PATH}" in words


@pytest.mark.parametrize(
    ("page", "limit", "seconds"),
    [
        (ENGLISH, "({0}; {1} at most)", "for {0:.0f} seconds at most"),
        (CHINESE, "（默认 {0}，最多 {1}）", "最多读 {0:.0f} 秒"),
    ],
    ids=["en", "zh"],
)
def test_the_page_has_each_tool_with_all_its_arguments_and_limits(page: str, limit: str, seconds: str) -> None:
    settings = ServerSettings()
    with Indexes(settings) as indexes:
        known = Tools(None, indexes, settings).all
    for tool in known:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{tool.name}` |")]
        named = set(re.findall(r"`(\w+)`", row))
        assert set(tool.takes.fields) <= named, tool.name
    assert limit.format(schemas.LIMIT, schemas.LIMIT_MAX) in page
    assert seconds.format(tools.RERANK_S) in page
