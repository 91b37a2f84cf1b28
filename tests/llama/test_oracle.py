"""The oracle and the tiny models are right by themselves, before anything is held to them.

Tokens: the tiny GGUF gives through llama.cpp the ids of the `tokenizers` library. Numbers: the NumPy forward pass is
held to results worked out by hand, without llama.cpp; that llama.cpp computes the same is what other tests say.
"""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import Config, Weights, attention, embed

from q3e_local.embedding.embedder import Embedder

TOKENIZER = tiny.tiny_tokenizer()
END_ID: int = TOKENIZER.get_vocab()[tiny.END]
# The NFC of `tokenizers` knows Unicode 9: it does not reorder the combining marks that came later.
LATER_MARKS = "\u09fe\u0c3c\u0d3b\u0d3c"


def letters(first: int, last: int) -> st.SearchStrategy[str]:
    alphabet = st.characters(
        min_codepoint=first, max_codepoint=last, exclude_categories=["Cs", "Cn"], exclude_characters=LATER_MARKS
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


@pytest.fixture(scope="module")
def embedder(engine):
    return Embedder(engine, "tiny")


@settings(max_examples=500, deadline=None)
@given(text=TEXTS)
@example(text="")
@example(text="e\u0301 \u1112\u1161\u11ab")
@example(text="<|endoftext|>\u0338 </think>\u0323\u0338")
@example(text="  <|im_start|>  user\n\n<think> </think>  ")
def test_a_text_has_the_ids_of_the_reference_tokenizer(embedder, text):
    ids = embedder.engine.tokenize(embedder.normalized(text))
    assert [*ids, embedder.engine.eos_id] == TOKENIZER.encode(text).ids


def test_normalizing_across_an_added_token_would_lose_it(engine):
    text = f"{tiny.END}\u0338"  # ">" and the overlay compose to U+226F
    assert TOKENIZER.encode(text).ids[0] == END_ID
    assert END_ID not in engine.tokenize(unicodedata.normalize("NFC", text))


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
    identity = np.eye(2)
    weights = {
        "embed_tokens.weight": np.array([[0.0, 0.0], [1.0, 7.0]]),
        "layers.0.input_layernorm.weight": np.array([5.0, 5.0]),  # rms of (1, 7) is 5, so this gives it back
        "layers.0.self_attn.q_proj.weight": identity,
        "layers.0.self_attn.k_proj.weight": identity,
        "layers.0.self_attn.v_proj.weight": identity,
        "layers.0.self_attn.o_proj.weight": identity[::-1],
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
