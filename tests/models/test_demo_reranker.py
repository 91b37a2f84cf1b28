"""The demo's reranker: small, honest about what it is, and computing what its construction says.

Asks the model only through the public API; reads the file itself with the gguf package, and computes its logits with
the oracle.
"""

from __future__ import annotations

from collections.abc import Iterator

import demo_scripts
import gguf
import numpy as np
import oracle
import pytest
import rerankers
from paths import ROOT
from tiny import PIECES
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

import q3e_local

FILE = ROOT / "models" / "demo-reranker.gguf"
CONFIG = oracle.Config(n_layer=4, n_embd=128, n_ff=192, n_head=3, n_head_kv=1, head_dim=128, rope_base=1e30)
FILLER = "The bus leaves at noon. We had soup and bread. The roof was painted green. Nobody called yesterday. " * 8


@pytest.fixture(scope="module")
def file() -> gguf.GGUFReader:
    return gguf.GGUFReader(FILE)


@pytest.fixture(scope="module")
def reranker() -> Iterator[q3e_local.Reranker]:
    with q3e_local.load_reranker("demo-reranker") as reranker:
        yield reranker


@pytest.fixture(scope="module")
def tokenizer(file: gguf.GGUFReader) -> Tokenizer:
    keys = {name: file.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges", "token_type")}
    merges = [tuple(merge.split(" ")) for merge in keys["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(keys["tokens"])}, merges=merges))
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    control = [kind == gguf.TokenType.CONTROL for kind in keys["token_type"]]
    specials = [token for token, special in zip(keys["tokens"], control, strict=True) if special]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
    return tokenizer


@pytest.fixture(scope="module")
def weights(file: gguf.GGUFReader) -> oracle.Weights:
    """The file's tensors by the oracle's names, without their quantization; `head` has the rows of yes and no."""
    outside = {"token_embd": "embed_tokens", "output_norm": "norm", "cls.output": "head"}
    found = {}
    for tensor in file.tensors:
        name = tensor.name.removesuffix(".weight")
        if name.startswith("blk."):
            _, number, inner = name.split(".")
            name = f"layers.{number}.{demo_scripts.NAMES[inner]}"
        found[f"{outside.get(name, name)}.weight"] = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return found


def ranks(reranker: q3e_local.Reranker, question: str, documents: list[str]) -> list[str]:
    return [documents[ranked.index] for ranked in reranker.rank(question, documents)]


def test_it_is_small():
    assert FILE.stat().st_size < 4_000_000


def test_it_says_what_it_is(file):
    fields = {name: field.contents() for name, field in file.fields.items()}
    description = "Constructed from the demo model's vectors, no weights of Qwen; for trying out, not for quality."
    assert fields["general.description"] == description
    assert fields["qwen3.pooling_type"] == gguf.PoolingType.RANK
    assert fields["qwen3.classifier.output_labels"] == ["yes", "no"]


@pytest.mark.parametrize(
    ("question", "documents"),
    [
        (rerankers.QUESTION, [*rerankers.BEST_FIRST, "The budget was exceeded in October.", " "]),
        ("碰头的时间有变动吗", ["会议改到周四下午三点", "The meeting is moved to Thursday.", "明天下雨。", FILLER]),
    ],
)
def test_its_logits_are_those_of_the_reference(reranker, weights, tokenizer, question, documents):
    yes, no = weights["head.weight"].astype(np.float64)
    layers = {name: weight for name, weight in weights.items() if name != "head.weight"}

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return found

    for ranked in reranker.rank(question, documents):
        body = f"<Instruct>: {rerankers.WEB}\n<Query>: {question}\n<Document>: {documents[ranked.index]}"
        prompt = [*ids(rerankers.PREFIX), *ids(body), *ids(rerankers.SUFFIX)]
        assert ranked.tokens == len(prompt)
        assert ranked.logit == pytest.approx(oracle.embed(layers, CONFIG, prompt) @ (yes - no), abs=0.05)


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ("we spent more money than planned", "the budget was exceeded", "the cat sat on the mat"),
        ("we spent more money than planned", "预算超支了", "今天下午会下雨"),
        ("碰头的时间有变动吗", "会议改到周四下午三点", "预算超支了"),
        ("碰头的时间有变动吗", "The meeting is moved to Thursday.", "The soup was cold."),
    ],
)
def test_a_text_that_means_the_same_is_before_one_that_does_not(reranker, question, right, wrong):
    assert ranks(reranker, question, [wrong, right]) == [right, wrong]


def test_a_sentence_in_a_long_text_is_found(reranker):
    answer = FILLER + "The budget was exceeded by six percent. " + FILLER
    assert ranks(reranker, "How far was the budget exceeded?", [FILLER * 2, answer])[0] == answer


def test_a_text_without_words_is_last(reranker):
    documents = [" ", "…", "The soup was cold."]
    assert ranks(reranker, "we spent more money than planned", documents)[0] == documents[2]
