"""The curve over the length of a text is measured at exactly these lengths, and goes on where it was interrupted."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from paths import ROOT

from q3e_local.llama.engine import LlamaEngine
from q3e_local.models.catalog import models_folder

SCRIPT = ROOT / "scripts" / "bench" / "lengths.py"
DEMO = models_folder() / "demo.gguf"


def lengths(*arguments: object) -> Any:
    main = runpy.run_path(str(SCRIPT))["main"]
    return CliRunner().invoke(main, [str(one) for one in arguments], catch_exceptions=False)


def rounds(output: Path) -> dict[str, int]:
    """How many there are, by length."""
    return {length: len(found) for length, found in json.loads(output.read_text())["lengths"].items()}


def test_each_length_is_measured_and_kept(tmp_path, monkeypatch):
    seen: list[int] = []
    decode = LlamaEngine.decode

    def recorded(self: LlamaEngine, sequences: Any, n_prefix: Any = None) -> Any:
        seen.extend(map(len, sequences))
        return decode(self, sequences, n_prefix)

    monkeypatch.setattr(LlamaEngine, "decode", recorded)
    output = tmp_path / "lengths.json"
    asked = ["--model", DEMO, "--rounds", 1, "--output", output]
    result = lengths(*asked, "--lengths", "600,16,99999")
    assert result.exit_code == 0
    assert "99,999 tokens: left out: the model takes" in result.stderr
    assert [n for n in seen if n != 64] == [16, 600]
    assert rounds(output) == {"16": 1, "600": 1}
    assert result.stdout == output.with_suffix(".md").read_text()
    table = result.stdout.splitlines()
    assert table[0] == "| tokens | tokens/s |"
    assert [line.split(" |")[0] for line in table[2:4]] == ["| 16", "| 600"]
    seen.clear()
    assert lengths(*asked, "--lengths", "600,700", "--rounds", 2).exit_code == 0
    assert [n for n in seen if n != 64] == [600, 700, 700]  # the first round of 600 was there
    assert rounds(output) == {"16": 1, "600": 2, "700": 2}
    assert len(json.loads(output.read_text())["runs"]) == 2


def test_a_curve_is_of_one_model_and_is_drawn_again_without_measuring(tmp_path):
    output = tmp_path / "lengths.json"
    assert lengths("--model", DEMO, "--rounds", 1, "--lengths", "16", "--output", output).exit_code == 0
    output.with_suffix(".md").unlink()
    assert "| 16 |" in lengths("--output", output).stdout
    assert output.with_suffix(".md").exists()
    content = json.loads(output.read_text())
    output.write_text(json.dumps(content | {"model": {"name": "another", "digest": "00"}}))
    result = lengths("--model", DEMO, "--lengths", "16", "--output", output)
    assert (result.exit_code, "is of another model, another" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "nothing is measured in lengths.json yet; give a --model"),
     (["--model", DEMO, "--lengths", "abc"], "'abc' is not like 128,512,"),
     (["--model", DEMO, "--lengths", "16,,0"], "'16,,0' is not like 128,512,")],
)  # fmt: skip
def test_wrong_usage_is_refused_with_the_reason(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = lengths(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
