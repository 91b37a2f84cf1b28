"""The demo model's vocabulary, its GGUF file, and the texts that its training may use."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import oracle
import pytest
from demo_scripts import CONFIG, FOLDER, NAMES, imported
from engines import hold
from gguf.quants import dequantize
from paths import ROOT
from tiny import PIECES
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

import q3e_local
from q3e_local.gguf.model_file import inspect

MODULES = ("shape", "vocabulary", "gguf_file", "corpus")

OFTEN = ["invoice", "invoices", "Invoice", "new", "news", "box", "boxes", "desk", "quartz", "发票", "打开"]
# Words of no language, each once: more than fit.
RARE = ["".join(letters) for letters in np.random.default_rng(0).choice(list("abcdefghijklmnop"), (500, 7))]
SIZE = 500
TEXTS = [
    "The new invoice is in the box, and 3 invoices aren't.",
    "请打开Invoice，然后把发票送到办公室里的'desk'上。",
    "  two blanks\n\nand lines\tand naïve £5.40 … 你好！",
    "裏面有 traditional characters 和 emoji 🎉",
]
SHAPES = {
    "attn_norm": (256,), "attn_q": (256, 256), "attn_k": (256, 256), "attn_v": (256, 256), "attn_output": (256, 256),
    "attn_q_norm": (64,), "attn_k_norm": (64,), "ffn_norm": (256,), "ffn_gate": (256, 256), "ffn_up": (256, 256),
    "ffn_down": (256, 256),
}  # fmt: skip
STEP = 1 / 254 + 1 / 2048  # half of one of 127 steps, and the rounding of a scale in 16 bits


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    """The modules that need no torch."""
    with imported(FOLDER, MODULES) as found:
        yield found


# Vocabulary


@pytest.fixture(scope="module")
def vocabulary(parts):
    return parts.vocabulary.learn(Counter(dict.fromkeys(OFTEN, 500) | dict.fromkeys(RARE, 1)), SIZE)


@pytest.fixture(scope="module")
def by_hand(vocabulary) -> Tokenizer:
    """A tokenizer of the same tokens and merges, made as that of a converted Qwen3-Embedding."""
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary.tokens)}, vocabulary.merges))
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    return tokenizer


def spelled(text: str) -> str:
    ((pieces, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return pieces


def test_a_word_that_occurs_often_is_one_token_wherever_it_stands(by_hand):
    for word in OFTEN:
        token = spelled(word)
        assert by_hand.encode(word).tokens == [token]
        assert by_hand.encode(f"的 {word}").tokens == [*by_hand.encode("的").tokens, "Ġ", token]
    # Without a blank, of words whose neighbours make no other word with them.
    assert by_hand.encode("请打开invoice发票").tokens[-3:] == [spelled(word) for word in ("打开", "invoice", "发票")]


def test_a_character_that_occurs_is_one_token_and_so_is_a_mark(by_hand):
    for character in "发票打开，。？！“”":
        assert by_hand.encode(character).tokens == [spelled(character)]


def test_only_the_blank_itself_has_a_blank(vocabulary):
    assert [token for token in vocabulary.tokens if "Ġ" in token] == ["Ġ"]


def test_a_vocabulary_is_no_larger_than_asked_and_without_repetitions(parts, vocabulary):
    larger = parts.vocabulary.learn(Counter(dict.fromkeys(OFTEN, 500) | dict.fromkeys(RARE, 1)), SIZE + 50)
    assert SIZE - 20 < len(vocabulary.tokens) <= SIZE < len(larger.tokens) <= SIZE + 50
    assert len(set(vocabulary.tokens)) == len(vocabulary.tokens)
    assert larger.tokens[: len(vocabulary.tokens)] == vocabulary.tokens


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_cuts_texts_as_one_made_by_hand(vocabulary, by_hand, text):
    assert vocabulary.tokenizer().encode(text).ids == by_hand.encode(text).ids


def test_an_accent_may_stand_behind_its_letter(vocabulary, by_hand):
    assert vocabulary.tokenizer().encode("caf\u0065\u0301").ids == by_hand.encode("caf\u00e9").ids


def test_forms_of_a_word_share_a_row_and_other_words_do_not(parts, vocabulary):
    rows, texts = vocabulary.groups()
    row = {token: rows[i] for i, token in enumerate(vocabulary.tokens)}
    assert row["Invoice"] == row["invoice"] == row["invoices"]
    assert row["box"] == row["boxes"]
    assert row["new"] != row["news"]
    assert texts[row["invoices"]] == "invoice"
    assert texts[row[spelled("发票")]] == "发票"
    assert len(texts) == len(set(rows.tolist())) == rows.max() + 1
    # A part of a character has a row of its own.
    part = spelled("票")[:2]
    assert texts[row[part]] == ""
    assert Counter(rows.tolist())[row[part]] == 1


def test_a_word_that_is_no_form_of_a_known_word_stands_alone(parts):
    alone = ["invoices", "glass", "glas", "this", "thi", "Tries", "bus", "bu"]
    rows, texts = parts.vocabulary.Vocabulary([*alone, "try"], []).groups()
    assert rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 5]
    assert texts == ["invoices", "glass", "glas", "this", "thi", "try", "bus", "bu"]


def test_a_plural_that_means_something_else_stands_alone(parts):
    rows, texts = parts.vocabulary.Vocabulary(["hour", "hours", "minutes", "minute", "day", "days"], []).groups()
    assert rows.tolist() == [0, 1, 2, 3, 4, 4]
    assert texts == ["hour", "hours", "minutes", "minute", "day"]


def test_a_saved_vocabulary_is_read_back_as_it_was(parts, vocabulary, tmp_path):
    vocabulary.save(tmp_path / "vocabulary.json")
    assert parts.vocabulary.Vocabulary.load(tmp_path / "vocabulary.json") == vocabulary


# The file


@pytest.fixture(scope="module")
def trained(vocabulary) -> dict[str, np.ndarray]:
    """Random parameters under their names."""
    random = np.random.default_rng(1)
    n_rows = len(vocabulary.groups()[1]) + 1

    def values(shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) == 1:
            return (1 + 0.1 * random.standard_normal(shape)).astype(np.float32)
        return (random.standard_normal(shape) * 1.5 / np.sqrt(shape[1])).astype(np.float32)

    layers = {f"blk.0.{name}": values(shape) for name, shape in SHAPES.items()}
    return {"token_embd": values((n_rows, 256)), **layers, "output_norm": values((256,))}


@pytest.fixture(scope="module")
def model(parts, vocabulary, trained, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "demo.gguf"
    parts.gguf_file.write(path, trained, vocabulary)
    assert list(path.parent.iterdir()) == [path]
    return path


@pytest.fixture(scope="module")
def written(model) -> dict[str, np.ndarray]:
    """The file's tensors as numbers."""
    tensors = gguf.GGUFReader(model).tensors
    matrix, vector = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32
    assert {tensor.tensor_type for tensor in tensors if len(tensor.shape) == 2} == {matrix}
    assert {tensor.tensor_type for tensor in tensors if len(tensor.shape) == 1} == {vector}
    return {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in tensors}


def test_the_file_is_a_model_of_the_family(model, vocabulary):
    info = inspect(model)
    assert (info.n_layer, info.n_embd, info.n_head, info.n_head_kv, info.head_dim, info.n_ff) == (
        1,
        256,
        4,
        4,
        64,
        256,
    )
    assert gguf.GGUFReader(model).fields["tokenizer.ggml.add_eos_token"].contents() is True
    assert (info.quantization, info.n_ctx_train) == ("q8_0", 32768)
    assert (info.n_vocab, info.eos_id) == (len(vocabulary.tokens) + 3, len(vocabulary.tokens))
    assert info.added_tokens == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def test_the_file_has_every_parameter_under_its_name(vocabulary, trained, written):
    layers = {f"blk.0.{name}.weight": shape for name, shape in SHAPES.items()}
    n_tokens = len(vocabulary.tokens) + 3
    shapes = {"token_embd.weight": (n_tokens, 256), "output_norm.weight": (256,)} | layers
    assert {name: values.shape for name, values in written.items()} == shapes
    for name, values in trained.items():
        if name != "token_embd":
            assert np.abs(written[f"{name}.weight"] - values).max() <= STEP * np.abs(values).max() * (values.ndim - 1)


def test_forms_of_a_word_have_equal_rows_in_the_file(vocabulary, trained, written):
    rows, _ = vocabulary.groups()
    table = written["token_embd.weight"]
    wanted = np.concatenate([trained["token_embd"][rows], trained["token_embd"][[-1] * 3]])
    assert np.abs(table - wanted).max() <= STEP * np.abs(wanted).max()
    forms = [vocabulary.tokens.index(form) for form in ("invoice", "Invoice", "invoices")]
    assert (table[forms] == table[forms[0]]).all()
    assert (table[vocabulary.tokens.index("news")] != table[vocabulary.tokens.index("new")]).any()


def test_llama_cpp_cuts_texts_and_computes_vectors_as_the_oracle(vocabulary, model, written):
    weights = {"embed_tokens.weight": written["token_embd.weight"], "norm.weight": written["output_norm.weight"]}
    weights |= {f"layers.0.{name}.weight": written[f"blk.0.{ours}.weight"] for ours, name in NAMES.items()}
    tokenizer, end = vocabulary.tokenizer(), len(vocabulary.tokens)
    with q3e_local.load(model, n_threads=1) as embedder:
        ids = [tokenizer.encode(text).ids for text in TEXTS]
        assert [embedder.engine.tokenize(text) for text in TEXTS] == ids
        vectors = embedder.embed_documents(TEXTS).vectors
    hold(vectors, np.array([oracle.embed(weights, CONFIG, [*each, end]) for each in ids]), least=0.999)


@pytest.mark.parametrize("name", ["output_norm", "blk.0.ffn_up"])
def test_a_file_without_a_parameter_is_not_written(parts, vocabulary, trained, tmp_path, name):
    lacking = {other: values for other, values in trained.items() if other != name}
    with pytest.raises(KeyError, match=name):
        parts.gguf_file.write(tmp_path / "demo.gguf", lacking, vocabulary)
    assert not (tmp_path / "demo.gguf").exists()


def test_an_interrupted_write_leaves_the_file_that_was_there(parts, vocabulary, trained, tmp_path, monkeypatch):
    def full(writer: gguf.GGUFWriter) -> None:
        writer.close()
        raise OSError("No space left on device")

    (tmp_path / "demo.gguf").write_text("precious")
    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(OSError, match="No space left"):
        parts.gguf_file.write(tmp_path / "demo.gguf", trained, vocabulary)
    assert (tmp_path / "demo.gguf").read_text() == "precious"


# Texts to learn from

JUDGED = [
    json.loads(line)
    for name in ("questions.jsonl", "pairs.jsonl")
    for line in (ROOT / "scripts" / "bench" / "understanding" / name).read_text(encoding="utf-8").splitlines()
]
SIDES = ("topic", "en", "zh", "q_en", "q_zh", "p_en", "p_zh")
LONG, LONG_ZH = (next(line["text"] for line in JUDGED if line.get("lang") == name) for name in ("en", "zh"))
SHORT_ZH = next(line["across"] for line in JUDGED if line.get("lang") == "en")


def example(number: int, **sides: str) -> dict[str, str]:
    return dict.fromkeys(SIDES, "") | {side: f"{side} of example {number}" for side in SIDES} | sides


def corpus_of(
    parts: SimpleNamespace, work: Path, monkeypatch: pytest.MonkeyPatch, text: str, more: Sequence = ()
) -> Any:
    """What is learned from where this text stands in the middle of the pairs, the examples and the sentences."""
    pair = {"source": "here", "kind": "title"}
    sentences = [{"text": "One sentence."}, {"text": text}, {"text": "Another sentence."}]
    pairs = [pair | {"a": "One", "b": "two"}, pair | {"a": "Three", "b": text}, pair | {"a": text, "b": "four"}]
    examples = more or [example(0), example(1, q_zh=text), example(2)]
    (work / "questions").mkdir()
    files = {"sentences": sentences, "pairs": [*pairs, pair | {"a": "Five", "b": "six"}], "questions/a": examples}
    for name, lines in files.items():
        (work / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(parts.corpus, "HERE", work)
    return parts.corpus.Corpus(work)


@pytest.mark.parametrize(
    "text",
    [LONG, f"{LONG} And five more words.", " - ".join(LONG.upper().split()), LONG_ZH, f"请问，{SHORT_ZH}？"],
    ids=["whole", "with more", "in capitals", "Chinese", "a short question"],
)
def test_what_repeats_a_text_that_judges_the_model_is_left_out_alone(parts, tmp_path, monkeypatch, text):
    corpus = corpus_of(parts, tmp_path, monkeypatch, text)
    assert corpus.single == ["One sentence.", "Another sentence."]
    assert corpus.pairs == {("title", "here"): [("One", "two"), ("Five", "six")]}
    assert [sides[0] for sides in (*corpus.held_back, *corpus.examples)] == ["en of example 0", "en of example 2"]
    assert text not in corpus.texts()


@pytest.mark.parametrize("text", ["A text that judges nobody", "appointment"])
def test_a_text_that_repeats_nothing_is_learned_from(parts, tmp_path, monkeypatch, text):
    corpus = corpus_of(parts, tmp_path, monkeypatch, text)
    assert (len(corpus.single), len(corpus.pairs["title", "here"])) == (3, 4)
    assert {text, "Three", "q_en of example 1", "p_zh of example 2"} <= corpus.learned().keys()


def test_every_20th_example_is_held_back(parts, tmp_path, monkeypatch):
    corpus = corpus_of(parts, tmp_path, monkeypatch, "A text", [example(i) for i in range(45)])
    assert [sides[4] for sides in corpus.held_back] == [f"q_en of example {i}" for i in (0, 20, 40)]
    assert len(corpus.examples) == 42
    held_back = {side for sides in corpus.held_back for side in sides}
    assert held_back.isdisjoint(corpus.learned())
    assert held_back <= {*corpus.texts()}
    assert len({*corpus.texts()}) == len(corpus.texts())


def test_texts_become_the_rows_of_their_first_tokens(parts, vocabulary):
    texts = ["invoice 发票", "Invoice 发票", "box " * 100]
    tokens = parts.corpus.Tokens(texts, vocabulary)
    rows, _ = vocabulary.groups()
    wanted = [rows[vocabulary.tokens.index(token)] for token in ("invoice", "Ġ", spelled("发票"))]
    assert tokens.length.tolist() == [3, 3, 96]
    assert [tokens.rows_of(i).tolist() for i in tokens.numbers(texts[1::-1])] == [wanted, wanted]
    assert (
        tokens.rows_of(2).tolist()
        == tokens.encode("box " * 48).tolist()
        == [rows[vocabulary.tokens.index("box")], wanted[1]] * 48
    )


def test_every_example_of_questions_is_whole_and_in_its_languages():
    han = re.compile("[\u3400-\u9fff]")
    paths = sorted((FOLDER / "questions").glob("*.jsonl"))
    wrong = []
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            sides = json.loads(line)
            right = list(sides) == list(SIDES) and all(
                isinstance(text, str) and text.strip() for text in sides.values()
            )
            if not right or any((han.search(text) is not None) != ("zh" in side) for side, text in sides.items()):
                wrong.append(f"{path.name}:{number}")
    assert paths != []
    assert wrong == []
