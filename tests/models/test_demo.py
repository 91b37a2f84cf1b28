"""The demo model: small, honest about what it is, and good enough to find notes by what they mean.

Asks the model only through the public API; reads the file itself with the gguf package.
"""

from __future__ import annotations

import json
import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from command import run
from paths import ROOT
from tiny import PIECES
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

import q3e_local

DEMO = ROOT / "models" / "demo.gguf"
SCRIPTS = ROOT / "scripts"
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


def test_it_is_small():
    assert DEMO.stat().st_size < 12_000_000


def test_beside_it_stands_what_it_was_made_of():
    page = DEMO.with_suffix(".md").read_text(encoding="utf-8")
    sources = tomllib.loads((SCRIPTS / "convert/demo/texts/sources.toml").read_text(encoding="utf-8"))
    for name, source in sources.items():
        assert f"| {name} ({source['kind']}) | {source['version']} | {source['licence']} |" in page


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
    description = header["general.description"].contents()
    assert description == (
        "Distilled from multilingual-e5-small, static, no weights of Qwen; for trying out and for small machines, "
        "not for quality."
    )
    assert header["qwen3.pooling_type"].contents() == gguf.PoolingType.LAST
    end = header["tokenizer.ggml.eos_token_id"].contents()
    assert header["tokenizer.ggml.tokens"].contents()[end] == "<|endoftext|>"
    assert header["tokenizer.ggml.token_type"].contents()[end] == gguf.TokenType.CONTROL


def test_every_common_chinese_character_is_one_token(tokenizer):
    cells = [bytes((row, cell)) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF)]
    characters = [cell.decode("gb2312") for cell in cells if cell < b"\xd7\xfa"]
    assert len(characters) == 3755
    assert [c for c in characters if len(tokenizer.encode(c).ids) != 1] == []


@pytest.mark.parametrize("word", ["budget", "customer", "meeting", "the", "Monday", "doctor", "cough", "server"])
def test_a_common_word_is_one_token_also_after_a_space(tokenizer, word):
    assert tokenizer.encode(word).tokens == [word]
    assert tokenizer.encode(" " + word).tokens == ["Ġ", word]


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


# In 64 numbers its words are nearer to a file about failed payments than to the file whose sentence has them.
TOO_LITTLE = {("Why are the hours on the pay slip wrong?", 64)}


@pytest.mark.parametrize(("question", "name"), QUESTIONS)
def test_a_question_finds_its_example(embedder, documents, dim, question, name, request):
    if (question, dim) in TOO_LITTLE:
        request.applymarker(
            pytest.mark.xfail(reason="its words are nearer to a file about failed payments", strict=True)
        )
    scores = documents @ embedder.embed_query(question, dim=dim).vectors[0]
    assert EXAMPLES[int(scores.argmax())].name == name


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the examples, whose passages are shorter than the files."""
    path = tmp_path_factory.mktemp("index") / "notes.q3e"
    assert run("index", ROOT / "examples/notes", "-m", "demo", "--db", path).exit_code == 0
    return path


@pytest.mark.parametrize(("question", "name"), QUESTIONS)
def test_a_search_has_the_example_among_its_first_two(indexed, question, name):
    hits = map(json.loads, run("search", question, "-k", 2, "--db", indexed).stdout.splitlines())
    assert name in [Path(hit["id"].partition("#")[0]).name for hit in hits]


NOTES = [
    "The budget was exceeded.", "会议改到周四下午三点。", "The shoemaker next to the station repairs boots.",
    "孩子昨晚发烧，今天不去幼儿园。", "Forgot your login? Reset it on the account page.", "冰箱里的牛奶过期了。",
    "The train to Vienna leaves from platform nine.", "服务器凌晨重启以后数据库连不上。",
]  # fmt: skip
# Questions that share no word with their note, or no language.
OTHER_WORDS = [
    ("we spent more money than planned", 0), ("花的钱比计划的多", 0), ("碰头的时间有变动吗", 1),
    ("when do we meet?", 1), ("who can fix my footwear?", 2), ("哪里可以修鞋", 2), ("宝宝生病了", 3),
    ("our child is ill", 3), ("忘记密码怎么办", 4), ("I do not remember my password", 4), ("喝的东西坏了", 5),
    ("去维也纳在哪里上车", 6), ("the machine was restarted and cannot store data", 7),
]  # fmt: skip


@pytest.mark.parametrize(("question", "note"), OTHER_WORDS)
def test_a_question_in_other_words_finds_its_note(embedder, question, note):
    scores = embedder.embed_documents(NOTES).vectors @ embedder.embed_query(question).vectors[0]
    assert int(scores.argmax()) == note


def figures(embedder: q3e_local.Embedder, dim: int | None) -> dict[str, tuple[float, float]]:
    """hit@1 and hit@3 of scripts/bench/understanding by split and direction."""
    script = runpy.run_path(str(SCRIPTS / "bench/understanding/hits.py"))

    def embed(texts, kind):
        return (embedder.embed_queries if kind == "query" else embedder.embed_documents)(list(texts), dim).vectors

    rows = script["hits"](embed)
    return {f"{row['split']}, {row['direction']}": (row["hit@1"], row["hit@3"]) for row in rows}


def test_it_finds_documents_that_share_no_word_with_the_question(embedder):
    """The questions that are held out."""
    found = figures(embedder, None)
    for direction, (hit_at_1, hit_at_3) in {"same": (0.80, 0.85), "across": (0.80, 0.95)}.items():
        assert found[f"held-out, {direction}"][0] >= hit_at_1
        assert found[f"held-out, {direction}"][1] >= hit_at_3


@pytest.mark.parametrize("dim", [256, 64])
def test_the_page_beside_it_has_its_figures(embedder, dim):
    rows = [line.split("|")[1:-1] for line in DEMO.with_suffix(".md").read_text(encoding="utf-8").splitlines()]
    table = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in reversed(rows) if row}
    names, shown = table["hit@1 / hit@3"], table[f"demo, {dim} numbers"]
    found = figures(embedder, dim)
    assert list(found) == names
    for name, cell in zip(names, shown, strict=True):
        # Two questions of 60 may come out otherwise on another CPU.
        assert [float(figure) for figure in cell.split("/")] == pytest.approx(found[name], abs=0.04)


def test_the_page_says_which_questions_are_missed():
    page = " ".join(DEMO.with_suffix(".md").read_text(encoding="utf-8").split())
    assert {dim for _, dim in TOO_LITTLE} == {64}
    assert f"all find their file at 256 numbers, and all but {len(TOO_LITTLE)} at 64" in page


def test_the_questions_cover_every_example():
    assert {name for _, name in QUESTIONS} == {path.name for path in EXAMPLES}


@pytest.mark.parametrize("text", ["!!!", "……", "😀", "٣ ж"])
def test_a_text_without_known_words_has_a_vector_too(embedder, text):
    for dim in (None, 64):
        assert np.linalg.norm(embedder.embed_documents([text], dim=dim).vectors) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("word", "form"),
    [
        ("budget", "Budget"),
        ("customer", "customers"),
        ("doctor", "Doctors"),
        ("ticket", "Tickets"),
        ("invoice", "Invoices"),
    ],
)
def test_forms_of_a_word_are_alike_and_other_words_are_not(embedder, word, form):
    same, alike, other = embedder.embed_documents([word, form, "gravity"]).vectors
    assert same @ alike > 0.95
    assert abs(same @ other) < 0.3


@pytest.mark.parametrize(
    "word", ["budget", "calendar", "doctor", "password", "receipt", "recipe", "salad", "server", "ticket", "meeting"]
)
def test_a_common_word_means_the_same_where_a_sentence_begins_with_it(embedder, word):
    small, capitalized = embedder.embed_documents([word, word.capitalize()]).vectors
    assert small @ capitalized > 0.99
