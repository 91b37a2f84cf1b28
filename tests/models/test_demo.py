"""The demo model: made byte for byte by its script, small, and good enough to find the example notes.

Asks the model only through the public API; reads the file itself with the gguf package.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import gguf
import numpy as np
import pytest
from paths import ROOT
from tiny import PIECES
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

import q3e_local

DEMO = ROOT / "models" / "demo.gguf"
SCRIPT = ROOT / "scripts" / "convert" / "make_demo.py"
EXAMPLES = sorted(path for path in (ROOT / "examples/notes").iterdir() if path.suffix in {".md", ".py"})
QUESTIONS = [
    ("Why could customers not pay in March?", "notes-en-outage.md"),
    ("What caused the outage of the payment service?", "notes-en-outage.md"),
    ("Which database problem stopped checkout from working?", "notes-en-outage.md"),
    ("Who gets the analyst position and what salary do we offer?", "notes-en-hiring.md"),
    ("How many people applied for the position, and which candidate did we choose?", "notes-en-hiring.md"),
    ("What happens if the candidate declines our offer?", "notes-en-hiring.md"),
    ("How does the bakery plan its shifts?", "notes-en-customer.md"),
    ("What happens when staff swap shifts in the chat group?", "notes-en-customer.md"),
    ("Why are the hours on the pay slip wrong?", "notes-en-customer.md"),
    ("为什么这个季度超支了？", "notes-zh-budget.md"),
    ("哪些费用超出了预算？", "notes-zh-budget.md"),
    ("测试环境为什么花了这么多服务器费用？", "notes-zh-budget.md"),
    ("什么时候搬到新办公室？", "notes-zh-office-move.md"),
    ("宽带合同签了没有？", "notes-zh-office-move.md"),
    ("搬家以后打印机和宽带能用吗？", "notes-zh-office-move.md"),
    ("新版本什么时候发布，有哪些功能？", "notes-zh-release.md"),
    ("指纹登录为什么会闪退？", "notes-zh-release.md"),
    ("语音搜索为什么推迟？", "notes-zh-release.md"),
    ("How do I sum a CSV of expenses by month?", "sum_expenses.py"),
    ("Which script reads an expenses file and adds up the amounts per month?", "sum_expenses.py"),
]


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_the_script_writes_exactly_the_shipped_file(tmp_path, hash_seed):
    made = tmp_path / "demo.gguf"
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    subprocess.run([sys.executable, SCRIPT, "-o", made], check=True, env=environment)
    assert made.read_bytes() == DEMO.read_bytes()
    assert list(tmp_path.iterdir()) == [made]


def test_the_script_does_not_write_over_a_file_unasked(tmp_path):
    there = tmp_path / "demo.gguf"
    there.write_text("precious")
    answer = subprocess.run([sys.executable, SCRIPT, "-o", there], capture_output=True, text=True)
    assert answer.returncode == 1
    assert "--force" in answer.stderr
    assert there.read_text() == "precious"


def test_it_is_small():
    assert DEMO.stat().st_size < 6_000_000


@pytest.fixture(scope="module")
def header() -> dict[str, gguf.ReaderField]:
    return dict(gguf.GGUFReader(DEMO).fields)


@pytest.fixture(scope="module")
def tokenizer(header: dict[str, gguf.ReaderField]) -> Tokenizer:
    ids = {token: i for i, token in enumerate(header["tokenizer.ggml.tokens"].contents())}
    merges = [tuple(merge.split(" ")) for merge in header["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    return tokenizer


def test_it_says_what_it_is(header):
    assert header["general.architecture"].contents() == "qwen3"
    assert "constructed, not trained" in header["general.description"].contents()
    assert header["qwen3.pooling_type"].contents() == gguf.PoolingType.LAST
    end = header["tokenizer.ggml.eos_token_id"].contents()
    assert header["tokenizer.ggml.tokens"].contents()[end] == "<|endoftext|>"
    assert header["tokenizer.ggml.token_type"].contents()[end] == gguf.TokenType.CONTROL


def test_every_common_chinese_character_is_one_token(tokenizer):
    cells = [bytes((row, cell)) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF)]
    characters = [cell.decode("gb2312") for cell in cells if cell < b"\xd7\xfa"]
    assert len(characters) == 3755
    assert [c for c in characters if len(tokenizer.encode(c).ids) != 1] == []


def test_every_word_is_one_token_also_after_a_space(tokenizer):
    lines = SCRIPT.with_name("demo_words.txt").read_text(encoding="utf-8").splitlines()
    words = [line for line in lines if line and not line.startswith(("#", "["))]
    assert {"budget", "outage", "invoice", "the", "Monday"} <= set(words)
    assert [w for w in words if tokenizer.encode(w).tokens != [w]] == []
    assert [w for w in words if tokenizer.encode(" " + w).tokens != ["Ġ", w]] == []


@pytest.fixture(scope="module")
def embedder() -> Iterator[q3e_local.Embedder]:
    with q3e_local.load("demo") as embedder:
        yield embedder


@pytest.fixture(scope="module", params=[None, 64], ids=["full", "64"])
def dim(request: pytest.FixtureRequest) -> int | None:
    return request.param


@pytest.fixture(scope="module")
def documents(embedder: q3e_local.Embedder, dim: int | None) -> np.ndarray:
    return embedder.embed_documents([path.read_text(encoding="utf-8") for path in EXAMPLES], dim=dim).vectors


@pytest.mark.parametrize(("question", "name"), QUESTIONS)
def test_a_question_finds_its_example(embedder, documents, dim, question, name):
    scores = documents @ embedder.embed_query(question, dim=dim).vectors[0]
    assert EXAMPLES[int(scores.argmax())].name == name


def test_the_questions_cover_every_example():
    assert {name for _, name in QUESTIONS} == {path.name for path in EXAMPLES}


def test_forms_of_a_word_are_alike_and_other_words_are_not(embedder):
    words = ["invoice", "Invoices", "gravity"]
    same, form, other = embedder.embed_documents(words).vectors
    assert same @ form > 0.95
    assert abs(same @ other) < 0.3
