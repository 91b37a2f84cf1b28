"""The recipe that makes a model end to end, on a tiny checkpoint that is here."""

from __future__ import annotations

import hashlib
import runpy
import tomllib

import checkpoints
import click
import pytest
from click.testing import CliRunner
from paths import ROOT

from q3e_local.gguf.model_file import inspect

SCRIPTS = ROOT / "scripts" / "convert"


@pytest.fixture(scope="module")
def recipe() -> click.Command:
    command: click.Command = runpy.run_path(str(SCRIPTS / "make_model.py"))["main"]
    return command


def test_it_prints_the_lines_of_the_card(recipe, tmp_path, weights, config, tokenizer):
    folder = checkpoints.write_checkpoint(tmp_path, weights, config, tokenizer, n_shards=3)
    out = tmp_path / "Tiny-Q4_K_M.gguf"
    result = CliRunner().invoke(recipe, ["--size", "0.6b", "--from-folder", str(folder), "-o", str(out)])
    assert result.exit_code == 0, result.output
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    entry = {"file": out.name, "size_bytes": out.stat().st_size, "sha256": digest}
    assert tomllib.loads(result.stdout) == {"files": {"q4_k_m": entry}}
    assert "warning: n_layer is 3, the card of qwen3-embedding:0.6b says 28" in result.stderr
    assert "warning: 'Explain gravity' scores " in result.stderr
    assert inspect(out).name == "Qwen3 Embedding 0.6B"
    again = CliRunner().invoke(recipe, ["--size", "0.6b", "--from-folder", str(folder), "-o", str(out)])
    assert (again.exit_code, "exists; replace it with --force" in again.stderr) == (1, True)


def test_without_a_network_it_names_the_ways_out(recipe, tmp_path):
    result = CliRunner().invoke(recipe, ["--size", "4b", "-o", str(tmp_path / "out.gguf")])
    assert result.exit_code == 1
    assert "config.json of Qwen/Qwen3-Embedding-4B is not on this machine" in result.stderr


def test_the_readme_names_every_script_and_its_options(recipe):
    readme = (SCRIPTS / "README.md").read_text(encoding="utf-8")
    for path in SCRIPTS.glob("*.py"):
        assert f"`{path.name}`" in readme
        assert f"python scripts/convert/{path.name} " in readme
