"""The curve over the length of a text is measured at exactly these lengths, and goes on where it was interrupted."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from q3e_local.catalog import models_folder
from q3e_local.llama.engine import LlamaEngine

SCRIPT = Path(__file__).parent.parent / "scripts" / "bench" / "lengths.py"
DEMO = models_folder() / "demo.gguf"


def lengths(*arguments: object) -> Any:
    main = runpy.run_path(str(SCRIPT))["main"]
    return CliRunner().invoke(main, [str(one) for one in arguments], catch_exceptions=False)


def rounds(output: Path) -> dict[str, dict[str, int]]:
    """How many there are, by length and label."""
    cells = json.loads(output.read_text())["lengths"]
    return {length: {label: len(found) for label, found in cell.items()} for length, cell in cells.items()}


def test_each_length_is_measured_with_all_settings_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str]] = []
    decode = LlamaEngine.decode

    def recorded(self: LlamaEngine, sequences: Any, n_prefix: Any = None) -> Any:
        settings = self.settings
        seen.extend((len(ids), f"{settings.long_attention} {settings.long_batch}") for ids in sequences)
        return decode(self, sequences, n_prefix)

    monkeypatch.setattr(LlamaEngine, "decode", recorded)
    output = tmp_path / "lengths.json"
    asked = ["--model", DEMO, "--rounds", 1, "--with", "plain-bf16-64", "--output", output]
    result = lengths(*asked, "--lengths", "600,16,99999")
    assert result.exit_code == 0
    assert "99,999 tokens: left out: the model takes" in result.stderr
    usual = "flash f16 512"
    assert [one for one in seen if one[0] != 64] == [(16, usual), (600, usual), (600, "plain bf16 64")]
    assert rounds(output) == {"16": {"chosen": 1}, "600": {"chosen": 1, "plain-bf16-64": 1}}
    assert result.stdout == output.with_suffix(".md").read_text()
    table = result.stdout.splitlines()
    assert table[0] == "| tokens | chosen | plain-bf16-64 |"
    assert [line.split(" |")[0] for line in table[2:4]] == ["| 16", "| 600"]
    assert table[5].startswith("- plain-bf16-64: cosine to chosen 0.99")
    seen.clear()
    assert lengths(*asked, "--lengths", "600,700", "--rounds", 2).exit_code == 0
    assert [n for n, _ in seen if n != 64] == [600, 600, 700, 700, 700, 700]  # the first round of 600 was there
    assert rounds(output)["600"] == {"chosen": 2, "plain-bf16-64": 2}
    assert len(json.loads(output.read_text())["runs"]) == 2


def test_a_curve_is_of_one_model_and_is_drawn_anew_without_measuring(tmp_path: Path) -> None:
    output = tmp_path / "lengths.json"
    assert lengths("--model", DEMO, "--rounds", 1, "--lengths", "16", "--output", output).exit_code == 0
    output.with_suffix(".md").unlink()
    assert "| 16 |" in lengths("--output", output).stdout
    assert output.with_suffix(".md").exists()
    content = json.loads(output.read_text())
    output.write_text(json.dumps(content | {"model": {"name": "another", "digest": "00"}}))
    result = lengths("--model", DEMO, "--lengths", "16", "--output", output)
    assert (result.exit_code, "is of another model, another" in result.stderr) == (1, True)


@pytest.mark.parametrize("label", ["plain", "plain-f32-512", "flash-f16"])
def test_settings_that_do_not_exist_are_refused_before_anything_is_measured(label: str, tmp_path: Path) -> None:
    result = lengths("--model", DEMO, "--with", label, "--output", tmp_path / "lengths.json")
    assert result.exit_code == 2
    assert "is not like flash-f16-512" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "nothing is measured in lengths.json yet; give a --model"),
     (["--model", DEMO, "--lengths", "abc"], "'abc' is not like 128,512,"),
     (["--model", DEMO, "--lengths", "16,,0"], "'16,,0' is not like 128,512,")],
)  # fmt: skip
def test_wrong_usage_is_told(
    arguments: list[object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = lengths(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
