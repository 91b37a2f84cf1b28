"""docs/install.md names folders, versions and extras as they are, and the page in Chinese gives the same commands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest
from paths import ROOT
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from q3e_local import files
from q3e_local.cli import main

PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "docs" / "install.zh-CN.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OF_FOLDERS = ("data", "config", "state", "cache")


def row(name: str) -> list[str]:
    """The cells of a folder's row, behind its name."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name}:")]
    return [cell.strip().strip("`") for cell in line.strip("|").split("|")][1:]


@pytest.mark.parametrize("name", OF_FOLDERS)
@pytest.mark.parametrize(("column", "system"), [(0, Unix), (1, MacOS)])
def test_folders_of_each_system(name, column, system, monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    said = row("data")[column] if row(name)[column] == "the same as data" else row(name)[column]
    assert Path(said).expanduser() == Path(getattr(system("q3e-local", appauthor=False), f"user_{name}_dir"))


@pytest.mark.parametrize("name", OF_FOLDERS)
def test_folders_below_q3e_home(name, monkeypatch, tmp_path):
    monkeypatch.setenv("Q3E_HOME", str(tmp_path))
    found = getattr(files, f"{name}_folder")()
    assert row(name)[3].replace("$Q3E_HOME", str(tmp_path)) == str(found)


def test_the_bindings_version_is_the_one_that_is_needed():
    (pinned,) = [each for each in PROJECT["dependencies"] if each.startswith("llama-cpp-python")]
    assert set(re.findall(r"llama-cpp-python==[\d.]+", PAGE)) == {pinned}
    assert set(re.findall(r"llama-cpp-python==[\d.]+", CHINESE)) == {pinned}


def commands(page: str) -> set[str]:
    """The lines of its blocks of commands, without comments and the space before them."""
    blocks = re.findall(r"```(?:sh|powershell)\n(.*?)```", page, flags=re.DOTALL)
    return {re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines() if line}


def test_the_chinese_page_gives_the_same_commands():
    """But for the mirrors that it alone names, its own words in a command, and another example of a build."""
    alone = {line for line in commands(CHINESE) - commands(PAGE) if re.search("镜像地址|你好|名称", line) is None}
    assert alone == {'CMAKE_ARGS="-DLLAVA_BUILD=OFF -DGGML_VULKAN=on" \\'}


@pytest.mark.parametrize("page", [PAGE, CHINESE])
def test_each_block_for_windows_can_be_pasted_as_a_whole(page):
    """What a block puts on the PATH is used in another window; a variable is set in the block that uses it."""
    section = page.partition("\n### Windows\n")[2].partition("\n### ")[0]
    blocks = re.findall(r"```powershell\n(.*?)```", section, flags=re.DOTALL)
    by_winget, with_nvidia, with_others = blocks[:3]
    assert re.search(r"^uv ", by_winget, re.MULTILINE) is None
    for block, kind, extras in ((with_nvidia, "cu124", "'.[all,cuda]'"), (with_others, "vulkan", "'.[all]'")):
        first, *others = block.splitlines()
        assert first == f'$INDEX = "…/whl/{kind}"'
        assert others[0].endswith(extras)
        assert not [line for line in others if line.startswith("q3e-local")]


def test_both_pages_have_the_same_kinds_and_builds():
    rows = [
        re.findall(r"^\| (`[a-z][a-z0-9-]+`(?:、|, )?(?:`cu\d+`)?|`-DGGML_\w+=on`) \|", page, re.MULTILINE)
        for page in (PAGE, CHINESE)
    ]
    english, chinese = ({each for row in found for each in re.findall(r"`([^`]+)`", row)} for found in rows)
    assert chinese <= english
    assert {"vulkan", "cpu", "metal", "cu124", "cu132", "rocm72", "hip-radeon", "-DGGML_VULKAN=on"} <= chinese


def test_extras_and_commands_there_are():
    named = {each for found in re.findall(r"\[([a-z,]+)\]'", PAGE + CHINESE) for each in found.split(",")}
    assert named
    assert named <= set(PROJECT["optional-dependencies"])
    commands = set(re.findall(r"^(?:\S+/)?q3e-local ([a-z]+)", PAGE, re.MULTILINE))
    assert {"service", "list", "rm", "cache", "doctor"} <= commands <= set(main.list_commands(click.Context(main)))


def test_each_extra_has_a_row_with_its_packages():
    extras = {
        name: needed for name, needed in PROJECT["optional-dependencies"].items() if name not in ("bench", "dev")
    }
    section = PAGE.partition("\n## Extras\n")[2].partition("\n## ")[0]
    rows = {name: cells for name, *cells in re.findall(r"^\| `([\w-]+)` \| (.+) \|(.*)\|$", section, re.MULTILINE)}
    assert set(rows) == set(extras)
    for name, (_, packages) in rows.items():
        needed = [re.split(r"[\[>]", each)[0] for each in extras[name]]
        assert sorted(filter(None, packages.strip().split(", "))) == (sorted(needed) if name != "all" else [])
