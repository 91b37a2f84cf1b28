"""Vectors of tiny models, held to the NumPy oracle: of any length, in any batch, with any setting, by the tap."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import tiny
from engines import BAD, LENGTHS, N_BATCH, N_CTX, broken, hold, loud, small
from gguf import GGUFReader
from gguf.quants import dequantize
from oracle import Weights

from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.request import Embedded, EmbedRequest
from q3e_local.errors import BadVectorError, EngineError
from q3e_local.llama import binding, pooling_context, tap_proof
from q3e_local.llama import tensors as tensors_of_graph
from q3e_local.llama.engine import LlamaEngine


@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_a_text_of_any_length_has_the_oracles_vector(engine, sequences, expected, n_tokens):
    vectors = engine.decode([sequences[n_tokens]])
    assert (vectors.shape, vectors.dtype) == ((1, 256), np.float32)
    hold(vectors, expected[n_tokens])


def test_the_vector_is_the_hidden_state_neither_scaled_nor_cut(engine, sequences, expected):
    np.testing.assert_allclose(engine.decode([sequences[9]])[0], expected[9], atol=0.01 * np.abs(expected[9]).max())


# On the weights that are in the file; what is left is that llama.cpp computes with activations of 8 bits.
@pytest.mark.parametrize(("kind", "least"), [("f16", 0.9999), ("q8_0", 0.997), ("q4_k_m", 0.997)])
def test_a_quantized_model_computes_what_its_own_weights_say(tiny_gguf, weights, config, sequences, kind, least):
    path = tiny_gguf(kind, context_length=N_CTX)
    names = {tiny._gguf_name(name): name for name in weights}
    stored = {
        names[tensor.name]: dequantize(tensor.data, tensor.tensor_type).reshape(weights[names[tensor.name]].shape)
        for tensor in GGUFReader(path).tensors
    }
    short = [ids for n, ids in sequences.items() if n <= 2 * N_BATCH + 1]
    with LlamaEngine(path, small()) as engine:
        vectors = np.concatenate([engine.decode([ids]) for ids in short])
    hold(vectors, np.stack([oracle.embed(stored, config, ids) for ids in short]), least)


@pytest.mark.parametrize("options", [{"n_batch": 1}, {"n_batch": 64}, {"n_batch": 100}, {"n_threads": 2}])
def test_a_setting_of_speed_does_not_change_the_vector(f32, sequences, expected, options):
    with LlamaEngine(f32, small(**options)) as engine:
        for n in (N_BATCH + 1, 9, 2 * N_BATCH + 1, N_CTX, N_CTX - 1):
            hold(engine.decode([sequences[n]]), expected[n])


# The tap


def test_the_tap_is_in_use_and_equals_llama_cpps_own_pooling(f32, engine, sequences):
    assert engine.tap
    with LlamaEngine(f32, small(tap=False)) as pooled:
        assert not pooled.tap
        for batch in ([sequences[2], sequences[9]], [sequences[2 * N_BATCH + 1]]):
            np.testing.assert_allclose(engine.decode(batch), pooled.decode(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tapped", [b"no such tensor", b"attn_norm-1", b"l_out-2", b"result_output"])
def test_a_tap_on_the_wrong_tensor_is_found_out_and_not_used(f32, sequences, expected, monkeypatch, caplog, tapped):
    monkeypatch.setattr(pooling_context, "TAPPED", tapped)
    with LlamaEngine(f32, small()) as engine:
        assert not engine.tap
        vectors = engine.decode([sequences[9], sequences[2]])
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "tap does not work here" in warning
    hold(vectors, np.array([expected[9], expected[2]]))


def test_the_graph_ends_at_the_tap_so_the_vocabulary_is_never_computed(f32, sequences, monkeypatch):
    tensors: list[bytes] = []
    name_of = tensors_of_graph.name_of
    monkeypatch.setattr(tensors_of_graph, "name_of", lambda tensor: tensors.append(name_of(tensor)) or tensors[-1])
    with LlamaEngine(f32, small()) as engine:
        tensors.clear()
        engine.decode([sequences[9], sequences[2]])
    assert tensors.count(b"result_norm") == 1
    assert tensors[-1] == b"result_norm"
    assert b"result_output" not in tensors


def test_the_tap_is_proved_once_for_a_file_and_a_build(tiny_gguf, monkeypatch, tmp_path):
    proofs: list[Path] = []
    agrees = tap_proof.tap_agrees

    def counted(model: binding.Weights, info: Any, *rest: Any) -> str | None:
        proofs.append(info.path)
        return agrees(model, info, *rest)

    def load(path: Path, **options: Any) -> None:
        with LlamaEngine(path, small(**options)) as engine:
            assert engine.tap

    monkeypatch.setattr(tap_proof, "tap_agrees", counted)
    monkeypatch.setattr(tap_proof, "_REPEATED_BYTES", 0)  # the tap of a model as small as this is proved at each load
    first, second = tiny_gguf("f32"), tiny_gguf("f16")
    for _ in range(2):
        load(first)
        load(first, n_threads=2, n_batch=8)  # of no account
    assert proofs == [first]
    load(second)
    assert proofs == [first, second]
    monkeypatch.setattr(binding, "build", lambda: "another")
    load(first)
    assert len(proofs) == 3
    (tmp_path / "file").touch()
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "file"))  # where nothing can be written
    load(first)
    load(first)
    assert len(proofs) == 5


def test_a_proof_that_failed_is_not_remembered(f32, monkeypatch):
    monkeypatch.setattr(tap_proof, "_REPEATED_BYTES", 0)
    with monkeypatch.context() as patch:
        patch.setattr(tap_proof, "tap_agrees", lambda *arguments: "no")
        for _ in range(2):
            with LlamaEngine(f32, small()) as engine:
                assert not engine.tap
    with LlamaEngine(f32, small()) as engine:
        assert engine.tap


# Batches


def test_a_vector_does_not_depend_on_its_neighbours_or_its_place(engine, sequences, expected):
    alone = {n: engine.decode([sequences[n]])[0] for n in (9, 2, 1)}
    for order in ([9, 2, 1], [1, 2, 9], [2, 9, 1], [1, 1, 9, 1], [9, 9, 9], [2] * 16):
        vectors = engine.decode([sequences[n] for n in order])
        np.testing.assert_allclose(vectors, [alone[n] for n in order], rtol=1e-3, atol=1e-3)
        hold(vectors, np.array([expected[n] for n in order]))


def test_as_many_texts_as_a_batch_takes_come_back_in_order(f32, eos_id):
    with LlamaEngine(f32, small(n_batch=512, n_seq_max=256)) as engine:
        words = [[i, eos_id] for i in range(256)]
        vectors = engine.decode(words)
        for i in (0, 1, 127, 255):
            np.testing.assert_allclose(vectors[i], engine.decode([words[i]])[0], rtol=1e-3, atol=1e-3)


def test_no_texts_are_no_vectors(engine):
    assert engine.decode([]).shape == (0, 256)


@pytest.mark.parametrize(
    "wrong",
    [
        [[]],
        [[5, 6]],  # no end token
        [[tiny.N_VOCAB, -1]],
        [[-1, 1014]],
        [[10**6, 1014]],
        [[5] * N_CTX + [1014]],
        [[5] * 20 + [1014]] * 2,  # two that do not fit one batch
        [[1014]] * 33,
    ],
)
def test_ids_that_would_kill_the_process_are_refused(engine, wrong):
    assert engine.eos_id == 1014
    with pytest.raises(EngineError):
        engine.decode(wrong)
    assert engine.decode([[5, 1014]]).shape == (1, 256)


# Texts that a model has no vector for

Changed = Callable[[Callable[[Weights], Weights]], Path]


@pytest.mark.parametrize("tap", [True, False])
def test_a_text_without_a_vector_is_named_and_spoils_no_other(changed, truth, eos_id, tap, caplog):
    first, bad, second = [5, 6, eos_id], [5, BAD, 6, eos_id], [301, 7, 9, eos_id]
    with LlamaEngine(changed(broken), small(tap=tap)) as engine:
        assert engine.tap == tap
        with pytest.raises(BadVectorError, match="NaN, infinity or zero") as caught:
            engine.decode([first, bad, second])
        assert caught.value.index == 1
        caplog.clear()
        hold(engine.decode([first, second]), truth([first, second]))
    assert not caplog.records  # the NaN is gone from the cache: no second try was needed


def test_a_text_that_overflows_the_f16_cache_is_computed_again_in_f32(changed, weights, config, eos_id, caplog):
    batch = [[5, 6, eos_id], [5, BAD, 6, eos_id], [301, 7, 9, eos_id], [*range(100, 140), BAD, eos_id]]
    with LlamaEngine(changed(loud), small()) as engine:
        vectors = np.concatenate([engine.decode(batch[:3]), engine.decode(batch[3:])])
    assert "trying it alone with f32 KV" in caplog.text
    hold(vectors, np.stack([oracle.embed(loud(weights), config, ids) for ids in batch]))


def test_the_embedder_delivers_the_good_texts_around_a_bad_one(changed, truth, tokenizer):
    bad, good = tokenizer.decode([BAD]), ["The capital of China", "重力"]
    ids = [tokenizer.encode(text).ids for text in good]
    assert BAD not in ids[0] + ids[1]
    assert BAD in tokenizer.encode(bad).ids
    with Embedder(LlamaEngine(changed(broken), small()), "tiny") as embedder:
        first, error, second = embedder.stream(EmbedRequest([good[0], bad, good[1]]))
    assert isinstance(error, BadVectorError)
    assert error.index == 1
    assert isinstance(first, Embedded)
    assert isinstance(second, Embedded)
    hold(np.stack([first.vector, second.vector]), truth(ids))
