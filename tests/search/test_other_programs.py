"""The example of docs/search.md, which searches an index with SQLite and sqlite-vec alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from command import demo, expected
from paths import ROOT

from q3e_local import VectorIndex

TEXTS = {"a": "第三季度预算复盘：支出超标", "b": "the budget was cut in March", "c": "roses are cut in March too"}


def test_the_example_finds_what_numpy_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?ORDER BY vec_distance_cosine\(vector, \?\).*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    with VectorIndex("notes.q3e", demo(), dim=64) as index:
        index.add(list(TEXTS.values()), list(TEXTS))
    exec(compile(example, "docs/search.md", "exec"), {})
    (question,) = re.findall(r'embed_query\("(.*?)"', example)
    query = expected([question], kind="query", dim=64).vectors[0]
    order = np.argsort(-(expected(TEXTS.values(), dim=64).vectors @ query))
    names, texts = list(TEXTS), list(TEXTS.values())
    assert capsys.readouterr().out.splitlines() == [f"{names[place]}: {texts[place]}" for place in order]
