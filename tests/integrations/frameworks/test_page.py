"""The Python of docs/frameworks.md runs as it stands, a section at a time, and prints what is expected."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SECTIONS = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8").split("\n## ")[1:]
CODE = {
    section.partition("\n")[0]: section.partition("```python\n")[2].partition("```")[0]
    for section in SECTIONS
    if "```python\n" in section
}
# What the lines print: the note that the demo models find, or the class.
ANIMAL = ("The neighbour fed the cat.", "The cat was fed at noon.")
PRINTED = {
    "LangChain": ANIMAL,
    "LlamaIndex": ANIMAL,
    "Haystack": ANIMAL,
    "Chroma": ANIMAL,
    "LanceDB": ANIMAL,
    "scikit-learn": ("['animals']",),
}


def test_every_section_with_code_is_run() -> None:
    assert set(PRINTED) == set(CODE)


@pytest.mark.parametrize("section", CODE)
def test_the_lines_run(
    section: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(CODE[section], "docs/frameworks.md", "exec", dont_inherit=True), {"__name__": "page"})
    assert capsys.readouterr().out.rstrip("\n") in PRINTED[section]
