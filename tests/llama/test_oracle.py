"""The oracle and the tiny models are right by themselves, before anything is held to them.

Tokens: the tiny GGUF gives through llama.cpp the ids of the `tokenizers` library. Numbers: the NumPy forward
pass is held to results worked out by hand and to properties of causal attention, without llama.cpp.
"""

from __future__ import annotations

import ctypes
import re
import unicodedata
from collections.abc import Callable, Iterator

import llama_cpp
import numpy as np
import pytest
import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import Config, Weights, attention, embed, hidden_states, rms_norm, rotate

TOKENIZER = tiny.tiny_tokenizer()
END_ID: int = TOKENIZER.get_vocab()[tiny.END]
ADDED = re.compile("(" + "|".join(map(re.escape, (*tiny.SPECIAL, *tiny.NOT_SPECIAL))) + ")")


def nfc(text: str) -> str:
    """Normalize as the reference does: between the added tokens, not across them."""
    return "".join(unicodedata.normalize("NFC", piece) for piece in ADDED.split(text))


@pytest.fixture(scope="module")
def llama_ids(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[int]]]:
    """llama.cpp's tokenizer on a tiny GGUF: special-token text is parsed, no end token is added."""
    path = tmp_path_factory.mktemp("tiny") / "f16.gguf"
    tiny.write_gguf(path, tiny.tiny_weights(Config()), Config(), TOKENIZER, "f16")
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    with tiny.mute_llama():
        model = llama_cpp.llama_model_load_from_file(bytes(path), params)
    vocab = llama_cpp.llama_model_get_vocab(model)

    def tokenize(text: str) -> list[int]:
        data = text.encode()
        buffer = (ctypes.c_int32 * (len(data) + 1))()
        n = llama_cpp.llama_tokenize(vocab, data, len(data), buffer, len(buffer), False, True)
        assert n >= 0
        return buffer[:n]

    yield tokenize
    llama_cpp.llama_model_free(model)


# The NFC of `tokenizers` knows Unicode 9: it does not reorder the combining marks that came later.
LATER_MARKS = "\u09fe\u0c3c\u0d3b\u0d3c"


def letters(first: int, last: int) -> st.SearchStrategy[str]:
    alphabet = st.characters(
        min_codepoint=first,
        max_codepoint=last,
        exclude_categories=["Cs", "Cn"],
        exclude_characters=LATER_MARKS,
    )
    return st.text(alphabet, min_size=1, max_size=6)


TEXTS = st.lists(
    st.one_of(
        letters(0x20, 0x7E),
        letters(0xA0, 0x24F),  # Latin with accents
        letters(0x300, 0x36F),  # combining marks
        letters(0x370, 0x52F),  # Greek, Cyrillic
        letters(0x590, 0x6FF),  # Hebrew, Arabic
        letters(0x900, 0xE7F),  # Indic scripts, Thai
        letters(0x1100, 0x11FF),  # Hangul jamo
        letters(0x1E00, 0x1FFF),  # Vietnamese, polytonic Greek
        letters(0x2000, 0x2BFF),  # punctuation, signs, arrows
        letters(0x3000, 0x30FF),  # kana
        letters(0x4E00, 0x9FFF),
        letters(0xAC00, 0xD7A3),  # Hangul syllables
        letters(0xF900, 0xFFEF),  # compatibility forms
        letters(0x1F300, 0x1FAFF),  # emoji
        letters(0x20000, 0x2FA1F),
        st.text("0123456789²½٣७Ⅷ①", min_size=1, max_size=5),
        st.text(" \t\n\r\x0b\x0c\x85\xa0\u2003\u3000\u200b\u200d\ufe0f", min_size=1, max_size=5),
        st.sampled_from([*tiny.SPECIAL, *tiny.NOT_SPECIAL, "<|", "|>", "'s", "'LL", "e\u0301", "👍🏽", "👩\u200d💻"]),
        st.sampled_from(tiny.TRAINING_TEXT.split()).map(" ".__add__),
    ),
    max_size=10,
).map("".join)


@settings(max_examples=500, deadline=None)
@given(text=TEXTS)
@example(text="")
@example(text="e\u0301 \u1112\u1161\u11ab")
@example(text="<|endoftext|>\u0338 </think>\u0323\u0338")
@example(text="  <|im_start|>  user\n\n<think> </think>  ")
def test_llama_cpp_gives_the_ids_of_the_reference_tokenizer(llama_ids, text):
    assert [*llama_ids(nfc(text)), END_ID] == TOKENIZER.encode(text).ids


def test_normalizing_across_an_added_token_would_lose_it(llama_ids):
    text = f"{tiny.END}\u0338"  # ">" and the overlay compose to U+226F
    assert TOKENIZER.encode(text).ids[0] == END_ID
    assert END_ID not in llama_ids(unicodedata.normalize("NFC", text))


def test_the_tokenizer_appends_one_end_token_and_knows_the_added_tokens():
    assert TOKENIZER.encode("").ids == [END_ID]
    encoded = TOKENIZER.encode("<think>a</think><|im_end|>")
    assert encoded.tokens == ["<think>", "a", "</think>", "<|im_end|>", "<|endoftext|>"]
    assert TOKENIZER.decode(encoded.ids, skip_special_tokens=True) == "<think>a</think>"


def test_tiny_vectors_of_different_texts_differ():
    weights = tiny.tiny_weights(Config())
    texts = ["hello", "The quick brown fox", "The quick brown cat", "重力", "gravity " * 20]
    vectors = np.array([embed(weights, Config(), TOKENIZER.encode(text).ids) for text in texts])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.triu(vectors @ vectors.T, k=1).max() < 0.9


def test_hand_computed_model():
    """One layer, one token: attention returns v, swapped by o_proj; the feed-forward part sees one unit."""
    config = Config(n_layer=1, n_embd=2, n_ff=1, n_head=1, n_head_kv=1, head_dim=2, rms_eps=0.0)
    one = np.eye(2)
    weights = {
        "embed_tokens.weight": np.array([[0.0, 0.0], [1.0, 7.0]]),
        "layers.0.input_layernorm.weight": np.array([5.0, 5.0]),  # rms of (1, 7) is 5, so this gives it back
        "layers.0.self_attn.q_proj.weight": one,
        "layers.0.self_attn.k_proj.weight": one,
        "layers.0.self_attn.v_proj.weight": one,
        "layers.0.self_attn.o_proj.weight": one[::-1],
        "layers.0.self_attn.q_norm.weight": np.ones(2),
        "layers.0.self_attn.k_norm.weight": np.ones(2),
        # (1, 7) + (7, 1) is (8, 8), normed (1, 1): gate 2, up 3.
        "layers.0.post_attention_layernorm.weight": np.ones(2),
        "layers.0.mlp.gate_proj.weight": np.array([[2.0, 0.0]]),
        "layers.0.mlp.up_proj.weight": np.array([[0.0, 3.0]]),
        "layers.0.mlp.down_proj.weight": np.array([[1.0], [0.0]]),
        "norm.weight": np.array([1.0, 2.0]),
    }
    first = 8 + 2 / (1 + np.exp(-2)) * 3
    expected = np.array([first, 2 * 8]) / np.sqrt((first**2 + 8**2) / 2)
    np.testing.assert_allclose(embed(weights, config, [1]), expected, rtol=1e-12)


def test_rotation_turns_each_half_pair_and_scores_see_only_the_distance():
    turned = rotate(np.array([[[1.0, 0, 0, 0]], [[1.0, 0, 0, 0]], [[0, 1.0, 0, 0]]]), base=100.0)[:, 0]
    expected = [[1, 0, 0, 0], [np.cos(1), 0, np.sin(1), 0], [0, np.cos(0.2), 0, np.sin(0.2)]]
    np.testing.assert_allclose(turned, expected, atol=1e-12)
    q, k = np.random.default_rng(0).standard_normal((2, 1, 1, 64))
    queries, keys = rotate(np.repeat(q, 9, axis=0), 1e6)[:, 0], rotate(np.repeat(k, 9, axis=0), 1e6)[:, 0]
    scores = queries @ keys.T
    for distance in range(-8, 9):
        np.testing.assert_allclose(np.diagonal(scores, distance), scores.diagonal(distance)[0], atol=1e-9)


def test_hand_computed_attention():
    """Two tokens of one direction: only the rotation and the values tell them apart."""
    config = Config(n_head=1, n_head_kv=1, n_embd=4, head_dim=4, rms_eps=0.0)
    weights: Weights = {f"self_attn.{name}_proj.weight": np.eye(4) for name in "qkvo"}
    weights |= {"self_attn.q_norm.weight": np.full(4, 3.0), "self_attn.k_norm.weight": np.ones(4)}
    x = np.array([[1.0, 0, 0, 0], [5.0, 0, 0, 0]])
    # Normed to (6, 0, 0, 0) and (2, 0, 0, 0), turned by one radian per position, divided by the root of 4.
    there, here = 6 * 2 * np.cos(1) / 2, 6 * 2 / 2
    weight = np.exp(there) / (np.exp(there) + np.exp(here))
    np.testing.assert_allclose(attention(x, weights, config)[:, 0], [1, weight * 1 + (1 - weight) * 5])


def layer(n: int = 0) -> dict[str, np.ndarray]:
    weights = tiny.tiny_weights(Config())
    return {k.removeprefix(f"layers.{n}."): v for k, v in weights.items() if k.startswith(f"layers.{n}.")}


def test_attention_over_one_token_or_equal_tokens_is_its_value():
    weights, x = layer(), np.random.default_rng(0).standard_normal((1, 256))
    values = (weights["self_attn.v_proj.weight"] @ x[0]).reshape(2, 64)
    expected = weights["self_attn.o_proj.weight"] @ values[[0, 0, 1, 1]].ravel()  # two query heads per KV head
    for n_tokens in (1, 5):
        rows = attention(np.repeat(x, n_tokens, axis=0), weights, Config())
        np.testing.assert_allclose(rows, np.tile(expected, (n_tokens, 1)), atol=1e-5)


def test_a_later_token_never_changes_an_earlier_row():
    weights, ids = tiny.tiny_weights(Config()), [5, 300, 42, 7, 900, 42, END_ID]
    rows = hidden_states(weights, Config(), ids)
    for n in range(1, len(ids)):
        changed = hidden_states(weights, Config(), [*ids[:n], 123])
        np.testing.assert_allclose(changed[:n], rows[:n], atol=1e-9)
        assert np.abs(changed[n] - rows[n]).max() > 0.1


def test_the_order_of_earlier_tokens_matters():
    weights = tiny.tiny_weights(Config())
    there, back = (embed(weights, Config(), ids) for ids in ([5, 300, END_ID], [300, 5, END_ID]))
    assert np.abs(there - back).max() > 0.1


def test_norm_has_root_mean_square_one():
    x = rms_norm(np.random.default_rng(0).standard_normal((3, 256)) * 7, np.ones(256), 1e-6)
    np.testing.assert_allclose(np.sqrt((x * x).mean(axis=1)), 1, rtol=1e-6)
