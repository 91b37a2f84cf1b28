"""The cards: what is shipped is sound, names resolve, and a wrong card names its file and key."""

from __future__ import annotations

import re

import pytest
from world import BUNDLED, digest

from q3e_local.errors import CardError, UnknownModelError
from q3e_local.models import catalog
from q3e_local.models.card_file import read_card
from q3e_local.models.catalog import cards, like, models_folder, resolve

EMBEDDERS = ["demo", "qwen3-embedding:0.6b", "qwen3-embedding:4b", "qwen3-embedding:8b"]
QWEN3_RERANKERS = ["qwen3-reranker:0.6b", "qwen3-reranker:4b", "qwen3-reranker:8b"]
RERANKERS = ["demo-reranker", *QWEN3_RERANKERS]
NAMES = sorted([*EMBEDDERS, *RERANKERS])

CARD = r"""
name = "big:1b"
aliases = ["Big-1B"]
description = "a card"
license = "MIT"
default = "q4_k_m"

[sizes]
parameters = 1_000_000_000
n_layer = 20
n_embd = 512
n_vocab = 151_669
n_ctx = 4096

[prompts]
query = "Instruct: {instruction}\nQuery:{text}"
instruction = "Find it"

[source]
repo = "someone/big"
revision = "0123456789012345678901234567890123456789"

[files.q4_k_m]
file = "big-q4.gguf"
size_bytes = 100
sha256 = "abababababababababababababababababababababababababababababababab"

[files.f16]
file = "big-f16.gguf"
size_bytes = 400
sha256 = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
"""


# The shipped cards


def test_these_models_are_known():
    assert sorted(cards()) == NAMES
    assert [name for name, card in cards().items() if card.kind == "reranker"] == RERANKERS
    assert sorted(name for name, card in cards().items() if card.is_bundled) == BUNDLED
    assert catalog.DEFAULT_MODEL == "qwen3-embedding:4b"
    assert resolve(catalog.DEFAULT_MODEL)[1].file == "Qwen3-Embedding-4B-Q4_K_M.gguf"


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_shipped_or_pinned_by_revision_size_and_checksum_or_made_from_one_that_is(name):
    for file in cards()[name].files.values():
        if file.repo is None:
            shipped = models_folder() / file.file
            assert (shipped.stat().st_size, digest(shipped)) == (file.size_bytes, file.sha256)
            continue
        assert re.fullmatch(r"[0-9a-f]{40}", file.revision or "")
        assert (file.size_bytes or 0) > 10**8
        assert file.quantization.replace("_", "").lower() in file.file.replace("_", "").lower()
        made_from = file.made_from
        if made_from == "checkpoint":
            assert file.repo == cards()[name].checkpoint.repo
            continue
        pinned = file if made_from is None else cards()[name].files[made_from]
        assert re.fullmatch(r"[0-9a-f]{64}", pinned.sha256 or "")


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("demo", ["distilled from multilingual-e5-small", "static"]),
        ("demo-reranker", ["constructed from the demo model's vectors"]),
    ],
)
def test_a_bundled_model_says_what_it_is(name, made):
    for words in (*made, "no weights of Qwen", "not for quality"):
        assert words in cards()[name].description


# Names


@pytest.mark.parametrize(
    ("names", "tag", "published"),
    [
        ("qwen3-embedding:0.6b Qwen3-Embedding-0.6B-Q4_K_M", "qwen3-embedding:0.6b", ""),  # made here from the f16
        ("qwen3-embedding:0.6b-q8_0 Qwen3-Embedding-0.6B-Q8_0 hf.co/Qwen/Qwen3-Embedding-0.6B-GGUF:Q8_0",
         "qwen3-embedding:0.6b-q8_0", "06507c7b4268"),
        ("qwen3-embedding:0.6b-f16 QWEN/qwen3-embedding-0.6b:F16", "qwen3-embedding:0.6b-f16", "421a27e58d16"),
        ("qwen3-embedding:4b qwen3-embedding qwen3-embedding:latest Qwen3-Embedding-4B Qwen/Qwen3-Embedding-4B "
         "Qwen/Qwen3-Embedding-4B-GGUF QWEN3-EMBEDDING-4B-Q4_K_M hf.co/Qwen/Qwen3-Embedding-4B-GGUF:Q4_K_M "
         "https://huggingface.co/Qwen/Qwen3-Embedding-4B-GGUF/ Qwen3-Embedding:4B "
         "https://www.modelscope.cn/models/Qwen/Qwen3-Embedding-4B", "qwen3-embedding:4b", "2b0cf8f17b4c"),
        ("qwen3-embedding:4b-q5_k_m qwen3-embedding:q5_k_m Qwen/Qwen3-Embedding-4B-GGUF:Q5_K_M",
         "qwen3-embedding:4b-q5_k_m", "9fd05563211c"),
        ("qwen3-embedding:4b-q8_0", "qwen3-embedding:4b-q8_0", "b60ae5ce2dd6"),
        ("qwen3-embedding:4b-f16", "qwen3-embedding:4b-f16", "e8b4e85c8fcc"),
        ("qwen3-embedding:8b Qwen/Qwen3-Embedding-8B", "qwen3-embedding:8b", "3fcd3febec8b"),
        ("qwen3-embedding:8b-f16", "qwen3-embedding:8b-f16", "9a2dfcc2e867"),
        ("demo Demo q3e-mini q3e-local-demo", "demo", "a9894a1b6f42"),
    ],
)  # fmt: skip
def test_every_name_of_a_shipped_model_means_its_published_file(names, tag, published):
    for name in [*names.split(), f" {tag}\n"]:
        card, file = resolve(name)
        assert card.tag(file.quantization) == tag, name
        assert (file.sha256 or "").startswith(published)
        assert file.made_from == (None if published else "f16")


@pytest.mark.parametrize(
    ("names", "tag", "repo", "sha256"),
    [
        ("demo-reranker Demo-Reranker q3e-mini-reranker demo-reranker:q4_0", "demo-reranker", None, "e52feceb26fd"),
        ("qwen3-reranker:0.6b qwen3-reranker qwen3-reranker:latest Qwen3-Reranker-0.6B Qwen/Qwen3-Reranker-0.6B "
         "hf.co/ggml-org/Qwen3-Reranker-0.6B-Q8_0-GGUF:Q8_0", "qwen3-reranker:0.6b",
         "ggml-org/Qwen3-Reranker-0.6B-Q8_0-GGUF", "22c9979ce4fb"),
        ("qwen3-reranker:0.6b-q4_k_m qwen3-reranker:q4_k_m Voodisss/Qwen3-Reranker-0.6B-GGUF-llama_cpp:Q4_K_M",
         "qwen3-reranker:0.6b-q4_k_m", "Voodisss/Qwen3-Reranker-0.6B-GGUF-llama_cpp", "c04f5f5657c5"),
        ("qwen3-reranker:4b Qwen/Qwen3-Reranker-4B", "qwen3-reranker:4b", "Qwen/Qwen3-Reranker-4B", ""),
        ("qwen3-reranker:8b-q8_0 Qwen3-Reranker-8B-Q8_0", "qwen3-reranker:8b-q8_0", "Qwen/Qwen3-Reranker-8B", ""),
    ],
)  # fmt: skip
def test_every_name_of_a_reranker_means_its_pinned_file_or_its_checkpoint(names, tag, repo, sha256):
    for name in names.split():
        card, file = resolve(name)
        assert (card.kind, card.tag(file.quantization), file.repo) == ("reranker", tag, repo), name
        assert (file.sha256 or "").startswith(sha256)
        assert file.is_converted == (not sha256)


@pytest.mark.parametrize("name", RERANKERS)
def test_a_reranker_has_the_prompt_of_qwen3_reranker(name):
    assert cards()[name].rerank_prompts.before_document("who?") == (
        "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n<Query>: who?\n"
        "<Document>: "
    )


@pytest.mark.parametrize("name", QWEN3_RERANKERS)
def test_a_qwen3_reranker_has_the_example_of_its_authors(name):
    card = cards()[name]
    assert (card.logits.documents[0].split(",")[0], card.logits.documents[-1][:5]) == ("Mars", "Venus")
    assert len(card.logits.expected) == (4 if name == "qwen3-reranker:0.6b" else 0)


def test_the_demo_reranker_has_an_example_of_its_own_that_it_ranks_as_a_reader_would():
    logits = cards()["demo-reranker"].logits
    assert logits.documents[0].startswith("Mars, known for its reddish appearance")
    assert logits.expected[0] > 0 > max(logits.expected[1:])


@pytest.mark.parametrize("name", ["", "qwen3-embedding:", "qwen3-embedding:4b-q2_k", "bert"])
def test_an_unknown_name_is_answered_with_where_all_names_stand(name):
    with pytest.raises(
        UnknownModelError,
        match=f"no model {name!r}; .*[Aa]ll models: q3e-local list --all; or give the path of a .gguf file",
    ) as found:
        resolve(name)
    assert str(found.value).count("qwen3-embedding:8b") <= 3


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("qwen3:4b", "qwen3-embedding:4b"),
        ("qwen3-embeding-4b", "qwen3-embedding:4b"),
        ("Qwen/Qwen3-Embeding-8B", "qwen3-embedding:8b"),
        ("4b", "qwen3-embedding:4b"),
        ("0.6B", "qwen3-embedding:0.6b"),
        ("qwen3-embedding-4b-q8", "qwen3-embedding:4b-q8_0"),
        ("dmeo", "demo"),
        ("qwen3-rerankr:4b", "qwen3-reranker:4b"),
        ("reranker", "demo-reranker"),
        ("qwen-reranker", "qwen3-reranker:0.6b"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest_first(name, meant):
    with pytest.raises(UnknownModelError, match=f"; did you mean {meant}(, | or |[?])"):
        resolve(name)
    assert like(name)[0] == meant
    assert len(like(name)) <= 3


def test_a_name_without_a_size_is_answered_with_each_size():
    assert sorted(like("qwen")) == ["qwen3-embedding:0.6b", "qwen3-embedding:4b", "qwen3-embedding:8b"]
    assert sorted(like("qwen3-embedding:2b")) == ["qwen3-embedding:0.6b", "qwen3-embedding:4b", "qwen3-embedding:8b"]


@pytest.mark.parametrize("name", ["", "bert", "gpt-4", "x" * 100_000])
def test_a_name_like_no_other_has_no_suggestions(name):
    assert like(name) == []


# A card


RANKING = r"""
kind = "reranker"

[prompts]
body = "{instruction} {query} {document}"
instruction = "Find it"

[scores]
query = "q"
documents = ["good", "fair", "bad"]
logits = [2, 0.5, -1.5]
"""


def ranking(old: str = "", new: str = "") -> str:
    """CARD, of a reranker, with a part replaced."""
    head, rest = CARD.split("[sizes]")
    sizes, files = rest.split("[prompts]")[0], rest[rest.index("[source]") :]
    kind, tables = RANKING.split("\n\n", 1)
    card = f"{head}{kind}\n[sizes]{sizes}{tables}\n{files}"
    assert old in card
    return card.replace(old, new) if old else card


def test_a_rerankers_card_has_its_prompt_and_logits(tmp_path):
    (tmp_path / "card.toml").write_text(ranking())
    card = read_card(tmp_path / "card.toml")
    assert (card.kind, card.rerank_prompts.before_document("q")) == ("reranker", "Find it q ")
    assert (card.logits.query, card.logits.documents) == ("q", ("good", "fair", "bad"))
    assert card.logits.expected == (2.0, 0.5, -1.5)


def test_a_file_may_be_of_a_repository_of_its_own(tmp_path):
    own = f'file = "big-f16.gguf"\nrepo = "other/big"\nrevision = "{40 * "e"}"'
    (tmp_path / "card.toml").write_text(CARD.replace('file = "big-f16.gguf"', own))
    files = read_card(tmp_path / "card.toml").files
    assert (files["f16"].repo, files["f16"].revision) == ("other/big", 40 * "e")
    assert files["q4_k_m"].repo == "someone/big"
    (tmp_path / "card.toml").write_text(CARD.replace('file = "big-f16.gguf"', own.replace(40 * "e", "main")))
    with pytest.raises(CardError, match=r"files\.f16\.revision must be a commit"):
        read_card(tmp_path / "card.toml")


def test_a_file_that_is_made_from_the_checkpoint_needs_one(tmp_path):
    made = CARD.replace(f'sha256 = "{"cd" * 32}"', 'made_from = "checkpoint"')
    (tmp_path / "card.toml").write_text(made)
    with pytest.raises(CardError, match=r"source\.checkpoint must be a name without"):
        read_card(tmp_path / "card.toml")
    source = '[source]\ncheckpoint = "one/big"\ncheckpoint_revision = "main"'
    (tmp_path / "card.toml").write_text(made.replace("[source]", source))
    card = read_card(tmp_path / "card.toml")
    assert (card.files["f16"].is_converted, card.files["f16"].repo) == (True, "one/big")
    assert card.origin(card.files["f16"]) is None


def test_a_card_is_read_whole(tmp_path):
    (tmp_path / "card.toml").write_text(CARD)
    card = read_card(tmp_path / "card.toml")
    assert (card.name, card.aliases, card.license, card.default) == ("big:1b", ("Big-1B",), "MIT", "q4_k_m")
    assert list(card.files) == ["q4_k_m", "f16"]
    file = card.files["f16"]
    assert (file.repo, file.revision, file.file) == ("someone/big", "0123456789" * 4, "big-f16.gguf")
    assert (file.size_bytes, file.sha256, file.quantization) == (400, "cd" * 32, "f16")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "big:1b"', "", "name must be"),
        ('aliases = ["Big-1B"]', 'aliases = "Big-1B"', "aliases must be a list.*got 'Big-1B'"),
        ('default = "q4_k_m"', 'default = "q9"', "q9.*only q4_k_m, f16"),
        ('repo = "someone/big"', "", "repo must be"),
        ("size_bytes = 100", 'size_bytes = "100"', "size_bytes must be .*got '100'"),
        ('sha256 = "ab', 'sha256 = "xb', "files.q4_k_m.sha256 must be .*64 hex"),
        ('revision = "0', 'revision = "main', "source.revision must be a commit"),
        ('file = "big-q4.gguf"', 'file = "../big.gguf"', r"files.q4_k_m.file must be .*got '\.\./big"),
        ('file = "big-q4.gguf"', 'file = "/etc/x"', "files.q4_k_m.file must be .*got '/etc/x'"),
        ('file = "big-q4.gguf"', "file = 'a\\..\\b'", "files.q4_k_m.file must be a name without"),
        ('repo = "someone/big"', 'repo = "../x"', "source.repo must be a name without"),
        ("size_bytes = 100", "size_bytes = 0", "files.q4_k_m.size_bytes must be a whole number above 0; got 0"),
        ("[files.f16]", "[files.F16]", r"\[files.F16\] makes 'big:1b-F16', which is no model name"),
        (f'sha256 = "{"cd" * 32}"', "", "files.f16.sha256 must be"),
        (f'sha256 = "{"cd" * 32}"', 'made_from = "f16"', "files.f16.made_from must name a file with a sha256"),
        ('license = "MIT"', "license = ", ""),
        (
            'license = "MIT"',
            'license = "MIT"\nkind = "ranker"',
            "kind must be 'embedder' or 'reranker'; got 'ranker'",
        ),
    ],
)
def test_a_wrong_card_names_its_file_and_key(tmp_path, old, new, says):
    assert old in CARD
    (tmp_path / "card.toml").write_text(CARD.replace(old, new))
    with pytest.raises(CardError, match=rf"card\.toml.*{says}"):
        read_card(tmp_path / "card.toml")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("{document}", "", "prompts.body must have the places"),
        ("{query} {document}", "{document} {query}", "prompts.body must have the places"),
        ("logits = [2, 0.5, -1.5]", "logits = [2, 0.5]", "scores.logits must be a number for each of two documents"),
        ("logits = [2, 0.5, -1.5]", "logits = [2, 0.5, true]", "scores.logits must be a list of numbers"),
        ('documents = ["good", "fair", "bad"]', 'documents = ["good"]', "for each of two documents or more"),
    ],
)
def test_a_rerankers_wrong_card_names_its_file_and_key(tmp_path, old, new, says):
    (tmp_path / "card.toml").write_text(ranking(old, new))
    with pytest.raises(CardError, match=rf"card\.toml.*{says}"):
        read_card(tmp_path / "card.toml")


def test_a_missing_card_and_one_that_is_no_text_are_named(tmp_path):
    (tmp_path / "card.toml").write_bytes(b"\xff\xfe")
    for name in ("card.toml", "none.toml"):
        with pytest.raises(CardError, match=rf"cannot read the card .*{name}"):
            read_card(tmp_path / name)
