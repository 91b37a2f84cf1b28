"""The code of docs/quality.md runs on models and a task that are here; its commands have the scripts' options."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import mteb
import pytest
from local_tasks import ROOT, FewNotesRetrieval

PAGE = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
LIBRARY, SERVER = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def with_models_here(code: str, embedder: str, reranker: str) -> str:
    assert "qwen3-embedding:0.6b" in code
    assert "qwen3-reranker:0.6b" in code
    return code.replace("qwen3-embedding:0.6b", embedder).replace("qwen3-reranker:0.6b", reranker)


def test_the_library_runs_a_task_in_two_stages(taught: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mteb, "get_task", lambda name: FewNotesRetrieval())
    monkeypatch.setattr(mteb, "get_tasks", lambda names: [FewNotesRetrieval()])
    code = with_models_here(LIBRARY, "demo", str(taught)).replace("dim=512", "dim=64").replace("100", "10")
    exec(code, {})
    assert (tmp_path / "found" / "Q3EFewNotesRetrieval_predictions.json").is_file()


def test_a_server_is_asked_with_mtebs_clients(address):
    code = with_models_here(SERVER, "demo:latest", "taught-reranker:latest")
    found: dict[str, object] = {}
    exec(code.replace("http://127.0.0.1:11434", address), found)
    assert found["encoder"].max_length == 32_768


@pytest.mark.parametrize("name", ["mteb_run.py", "mteb_table.py"])
def test_the_commands_have_the_scripts_options(name):
    main = runpy.run_path(str(ROOT / "scripts" / "bench" / name))["main"]
    known = {option for parameter in main.params for option in parameter.opts}
    commands = re.findall(rf"^ *python scripts/bench/{name} (.*)$", PAGE, re.MULTILINE)
    assert commands
    for command in commands:
        assert {part for part in shlex.split(command) if part.startswith("-")} <= known, command
