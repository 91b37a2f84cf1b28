"""The benchmark script runs; what it measures is for a quiet machine."""

from __future__ import annotations

import runpy
from pathlib import Path

from click.testing import CliRunner

from q3e_local.catalog import models_folder

SCRIPT = Path(__file__).parent.parent / "scripts" / "bench" / "against_llama_embed.py"


def test_both_sides_are_timed_in_turn() -> None:
    main = runpy.run_path(str(SCRIPT))["main"]
    arguments = [str(models_folder() / "demo.gguf"), "--rounds", "1", "--texts", "4", "--tokens", "16"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("demo.gguf: 4 texts, ")
    assert [line.split()[0] for line in lines[1:]] == ["q3e-local", "Llama.embed", "ratio"]
