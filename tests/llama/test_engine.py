"""LlamaEngine on tiny models: held to the NumPy oracle, to itself in other batches, and to its own limits.

Token ids go in; text appears only where tokenizing itself is asked. What the embedder adds is in test_embedder.
"""

from __future__ import annotations

import _thread
import gc
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import tiny
from gguf import GGUFReader
from gguf.quants import dequantize
from oracle import Config, Weights
from tokenizers import Tokenizer

import q3e_local
from q3e_local import machine
from q3e_local.embedding.batching import N_UNSPLIT
from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.engine import EngineConfig
from q3e_local.embedding.request import Embedded, EmbedRequest
from q3e_local.errors import BadVectorError, EngineError, ModelFileError, NotEnoughMemoryError, OptionError
from q3e_local.gguf.model_file import inspect
from q3e_local.llama import binding
from q3e_local.llama import contexts as contexts_module
from q3e_local.llama import pooling_context as context_module
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.kernels import in_use
from q3e_local.llama.pooling_context import Counts, tap_agrees
from q3e_local.llama.prefixes import KeptPrefixes
from q3e_local.llama.settings import kept as tuned
from q3e_local.llama.settings.defaults import Reason, Tuned
from q3e_local.llama.settings.memory import ContextPlan

N_BATCH, N_CTX = 32, 512
# Tokens of a text, end token included: one, around one and two batches, around the file's context_length.
LENGTHS = [1, 2, 9, N_BATCH - 1, N_BATCH, N_BATCH + 1, 2 * N_BATCH, 2 * N_BATCH + 1, N_CTX - 1, N_CTX]

Ids = list[int]
MakeGguf = Callable[..., Path]


def small(**options: Any) -> EngineConfig:
    """A small batch; one thread, as two that wait for each other are slow on a busy machine."""
    return EngineConfig(**{"n_batch": N_BATCH, "n_threads": 1} | options)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


@pytest.fixture(scope="module")
def sequences(eos_id: int) -> dict[int, Ids]:
    """One random sequence of each length."""
    rng = np.random.default_rng(1)
    return {n: [*rng.integers(0, tiny.N_VOCAB - 10, n - 1).tolist(), eos_id] for n in LENGTHS}


@pytest.fixture(scope="module")
def expected(sequences: dict[int, Ids], weights: Weights, config: Config) -> dict[int, np.ndarray]:
    """The oracle's vector of each of `sequences`."""
    return {n: oracle.embed(weights, config, ids) for n, ids in sequences.items()}


@pytest.fixture(scope="module")
def f32(tiny_gguf: MakeGguf) -> Path:
    return tiny_gguf("f32", context_length=N_CTX)


@pytest.fixture(scope="module")
def engine(f32: Path) -> Iterator[LlamaEngine]:
    with LlamaEngine(f32, small()) as engine:
        yield engine


# Right vectors


@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_a_text_of_any_length_has_the_oracles_vector(
    engine: LlamaEngine, sequences: dict[int, Ids], expected: dict[int, np.ndarray], n_tokens: int
) -> None:
    vectors = engine.decode([sequences[n_tokens]])
    assert vectors.shape == (1, 256)
    assert vectors.dtype == np.float32
    assert cosines(vectors, expected[n_tokens][None])[0] >= 0.9999


def test_the_vector_is_the_hidden_state_itself_neither_scaled_nor_cut(
    engine: LlamaEngine, sequences: dict[int, Ids], expected: dict[int, np.ndarray]
) -> None:
    np.testing.assert_allclose(engine.decode([sequences[9]])[0], expected[9], atol=0.01 * np.abs(expected[9]).max())


# On the weights that are in the file; what is left is that llama.cpp computes with activations of 8 bits.
@pytest.mark.parametrize(("kind", "least"), [("f16", 0.9999), ("q8_0", 0.997), ("q4_k_m", 0.997)])
def test_a_quantized_model_computes_what_its_own_weights_say(
    tiny_gguf: MakeGguf, weights: Weights, config: Config, sequences: dict[int, Ids], kind: str, least: float
) -> None:
    path = tiny_gguf(kind, context_length=N_CTX)
    names = {tiny._gguf_name(name): name for name in weights}
    stored = {
        names[tensor.name]: dequantize(tensor.data, tensor.tensor_type).reshape(weights[names[tensor.name]].shape)
        for tensor in GGUFReader(path).tensors
    }
    short = {n: ids for n, ids in sequences.items() if n <= 2 * N_BATCH + 1}
    with LlamaEngine(path, small()) as engine:
        vectors = np.concatenate([engine.decode([ids]) for ids in short.values()])
    truth = np.array([oracle.embed(stored, config, ids) for ids in short.values()])
    assert cosines(vectors, truth).min() >= least


@pytest.mark.parametrize("options", [{"n_batch": 1}, {"n_batch": 64}, {"n_batch": 100}, {"n_threads": 2}])
def test_a_setting_of_speed_does_not_change_the_vector(
    f32: Path, sequences: dict[int, Ids], expected: dict[int, np.ndarray], options: dict[str, int]
) -> None:
    with LlamaEngine(f32, small(**options)) as engine:
        for n_tokens in (N_BATCH + 1, 9, 2 * N_BATCH + 1, N_CTX, N_CTX - 1):
            assert cosines(engine.decode([sequences[n_tokens]]), expected[n_tokens][None])[0] >= 0.9999


def test_a_long_text_is_computed_in_pieces_of_a_batch_by_flash_attention_with_f16(
    f32: Path, sequences: dict[int, Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    make = binding.lib.llama_init_from_model

    def recorded(model: Any, params: Any) -> Any:
        made.append((params.n_batch, params.flash_attn_type, params.type_k, params.type_v))
        return make(model, params)

    monkeypatch.setattr(binding.lib, "llama_init_from_model", recorded)
    monkeypatch.setattr(binding, "can_offload", lambda: False)
    with LlamaEngine(f32, small(n_batch=128)) as engine:
        before = engine.counts
        engine.decode([sequences[N_CTX]])
        assert engine.counts == Counts(before.n_decodes + 4, before.n_tokens + N_CTX, 0)
    on, f16 = binding.lib.LLAMA_FLASH_ATTN_TYPE_ENABLED, binding.lib.GGML_TYPE_F16
    assert made[-2:] == [(128, on, f16, f16)] * 2  # for batches, and for the long text


def test_a_text_there_is_no_memory_for_is_computed_in_smaller_pieces(
    tiny_gguf: MakeGguf,
    eos_id: int,
    weights: Weights,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, text = tiny_gguf("f32"), [*range(1000), *range(100), eos_id]
    enough = ContextPlan(1280, 512, 1, tap=True).n_bytes(inspect(path))
    with LlamaEngine(path, small(n_batch=1024)) as engine, caplog.at_level(logging.INFO, "q3e_local.settings"):
        monkeypatch.setattr(machine, "available_memory", lambda: enough)
        vectors = engine.decode([text])
    assert cosines(vectors, oracle.embed(weights, config, text)[None])[0] >= 0.9995
    # The logger that --explain shows.
    said = [record.getMessage() for record in caplog.records if record.name == "q3e_local.settings"]
    assert said[-1:] == ["a text of 1101 tokens: pieces of 512 tokens (for want of memory)"]


def test_tokenizing_gives_the_reference_ids_without_the_end_token(engine: LlamaEngine, tokenizer: Tokenizer) -> None:
    for text in ("", "The capital of China", "重力 is <think>a force</think>", "a<|endoftext|>b<|im_end|>"):
        assert [*engine.tokenize(text), engine.eos_id] == tokenizer.encode(text).ids


# The tap


def test_the_tap_is_in_use_and_equals_llama_cpps_own_pooling(
    f32: Path, engine: LlamaEngine, sequences: dict[int, Ids]
) -> None:
    assert engine.tap
    with LlamaEngine(f32, small(tap=False)) as pooled:
        assert not pooled.tap
        for batch in ([sequences[2], sequences[9]], [sequences[2 * N_BATCH + 1]]):
            np.testing.assert_allclose(engine.decode(batch), pooled.decode(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tapped", [b"no such tensor", b"attn_norm-1", b"l_out-2", b"result_output"])
def test_a_tap_on_the_wrong_tensor_is_found_out_and_not_used(
    f32: Path,
    sequences: dict[int, Ids],
    expected: dict[int, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tapped: bytes,
) -> None:
    monkeypatch.setattr(context_module, "TAPPED", tapped)
    with LlamaEngine(f32, small()) as engine:
        assert not engine.tap
        vectors = engine.decode([sequences[9], sequences[2]])
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "tap does not work here" in warning
    assert cosines(vectors, np.array([expected[9], expected[2]])).min() >= 0.9999


def test_the_graph_ends_at_the_tap_so_the_vocabulary_is_never_computed(
    f32: Path, sequences: dict[int, Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    name_of = binding.tensor_name
    monkeypatch.setattr(binding, "tensor_name", lambda tensor: asked.append(name_of(tensor)) or asked[-1])
    with LlamaEngine(f32, small()) as engine:
        asked.clear()
        engine.decode([sequences[9], sequences[2]])
    assert asked.count(b"result_norm") == 1
    assert asked[-1] == b"result_norm"
    assert b"result_output" not in asked


def test_memory_for_logits_grows_with_the_texts_of_a_batch_and_not_with_its_tokens(f32: Path) -> None:
    info = inspect(f32)
    row = info.n_vocab * 4

    def per_token(tap: bool) -> int:
        small, large = (ContextPlan(256, n_batch, 8, tap).n_bytes(info) for n_batch in (100, 1100))
        return (large - small) // 1000

    assert per_token(tap=False) - per_token(tap=True) == 2 * row
    plans = [ContextPlan(256, 100, n_seq_max, tap=True).n_bytes(info) for n_seq_max in (1, 2)]
    assert plans[1] - plans[0] == 2 * row


# Batches


def test_a_vector_does_not_depend_on_its_neighbours_or_its_place(
    engine: LlamaEngine, sequences: dict[int, Ids], expected: dict[int, np.ndarray]
) -> None:
    lengths = [9, 2, 1]
    alone = {n: engine.decode([sequences[n]])[0] for n in lengths}
    for order in ([9, 2, 1], [1, 2, 9], [2, 9, 1], [1, 1, 9, 1], [9, 9, 9], [2] * 16):
        vectors = engine.decode([sequences[n] for n in order])
        np.testing.assert_allclose(vectors, [alone[n] for n in order], rtol=1e-3, atol=1e-3)
        assert cosines(vectors, np.array([expected[n] for n in order])).min() >= 0.9999


def test_a_long_text_leaves_nothing_behind_for_a_short_one(
    engine: LlamaEngine, sequences: dict[int, Ids], expected: dict[int, np.ndarray]
) -> None:
    for n_tokens in (N_CTX, 1, N_BATCH + 1, 9, N_CTX - 1, 2):
        assert cosines(engine.decode([sequences[n_tokens]]), expected[n_tokens][None])[0] >= 0.9999


def test_as_many_texts_as_a_batch_takes_come_back_in_order(f32: Path, eos_id: int) -> None:
    with LlamaEngine(f32, small(n_batch=512, n_seq_max=256)) as engine:
        words = [[i, eos_id] for i in range(256)]
        vectors = engine.decode(words)
        for i in (0, 1, 127, 255):
            np.testing.assert_allclose(vectors[i], engine.decode([words[i]])[0], rtol=1e-3, atol=1e-3)


def test_no_texts_are_no_vectors(engine: LlamaEngine) -> None:
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
def test_ids_that_would_kill_the_process_are_refused(engine: LlamaEngine, wrong: Sequence[Ids]) -> None:
    assert engine.eos_id == 1014
    with pytest.raises(EngineError):
        engine.decode(wrong)
    assert engine.decode([[5, 1014]]).shape == (1, 256)


# Memory


def test_the_context_starts_small_grows_on_demand_and_not_above_the_files_length(
    tiny_gguf: MakeGguf, sequences: dict[int, Ids], expected: dict[int, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    context = binding.Context

    def record(*arguments: object, n_ctx: int, **options: object) -> binding.Context:
        made.append(n_ctx)
        return context(*arguments, n_ctx=n_ctx, **options)

    monkeypatch.setattr(binding, "Context", record)
    with LlamaEngine(tiny_gguf("f32", context_length=N_CTX), small(tap=False)) as engine:
        assert engine.n_ctx_max == N_CTX
        assert made == [256]
        engine.decode([sequences[9]])
        assert made == [256]
        engine.decode([sequences[2 * N_BATCH]])
        assert made == [256, 256]  # for long texts one of its own
        vectors = engine.decode([sequences[N_CTX]])
        assert made == [256, 256, 512]
        engine.decode([sequences[9]])
        assert made == [256, 256, 512]
    assert cosines(vectors, expected[N_CTX][None])[0] >= 0.9999


def test_n_ctx_max_lowers_the_files_limit_and_never_raises_it(f32: Path) -> None:
    for asked, given in ((100, 100), (10_000, N_CTX), (None, N_CTX)):
        with LlamaEngine(f32, small(n_ctx_max=asked)) as engine:
            assert engine.n_ctx_max == given


def test_too_little_memory_is_told_in_numbers_before_anything_is_allocated(
    f32: Path, sequences: dict[int, Ids], expected: dict[int, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    with LlamaEngine(f32, small()) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(machine, "available_memory", lambda: 10_000)
            patch.setattr(binding, "Context", lambda *_, **__: pytest.fail("a context was made"))
            with pytest.raises(NotEnoughMemoryError, match=r"512 tokens needs 0\.\d\d GB .* 0\.\d\d GB are free"):
                engine.decode([sequences[N_CTX]])
            assert cosines(engine.decode([sequences[9]]), expected[9][None])[0] >= 0.9999
        assert cosines(engine.decode([sequences[N_CTX]]), expected[N_CTX][None])[0] >= 0.9999


def test_a_text_that_fits_only_without_room_to_grow_is_embedded(
    tiny_gguf: MakeGguf, eos_id: int, weights: Weights, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_gguf("f32")
    with LlamaEngine(path, small()) as engine:
        engine.decode([[*range(1000), *range(100), eos_id]])  # 1280 cells; a quarter more would be 1600
        info = inspect(path)
        just = ContextPlan(1536, N_UNSPLIT, 64, tap=True).n_bytes(info)
        there = ContextPlan(1280, N_UNSPLIT, 64, tap=True).n_bytes(info)
        monkeypatch.setattr(machine, "available_memory", lambda: just - there)
        longer = [*range(1000), *range(300), eos_id]
        vectors = engine.decode([longer])
    assert cosines(vectors, oracle.embed(weights, config, longer)[None])[0] >= 0.9995


def test_weights_larger_than_the_machine_are_refused_before_loading(
    f32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "total_memory", lambda: 5_000_000)
    monkeypatch.setattr(binding, "Model", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(NotEnoughMemoryError, match=r"needs 0\.0\d GB for its weights, this machine has 0\.01 GB"):
        LlamaEngine(f32, EngineConfig(n_gpu_layers=0))


# Threads and the end


def test_eight_threads_at_once_get_the_right_vectors_and_ids(
    engine: LlamaEngine, tokenizer: Tokenizer, sequences: dict[int, Ids], expected: dict[int, np.ndarray]
) -> None:
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for turn in range(10):
            n_tokens = LENGTHS[(number + turn) % 8]
            assert cosines(engine.decode([sequences[n_tokens]]), expected[n_tokens][None])[0] >= 0.9999
            text = f"text {number} of {turn}"
            assert [*engine.tokenize(text), engine.eos_id] == tokenizer.encode(text).ids

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, number) for number in range(8)]:
            future.result()


def test_closing_while_others_work_lets_them_finish_or_fail_cleanly(f32: Path, sequences: dict[int, Ids]) -> None:
    engine = LlamaEngine(f32, small())
    started, outcomes = threading.Barrier(5), []

    def work() -> None:
        started.wait()
        try:
            while True:
                engine.tokenize("some text")
                assert engine.decode([sequences[N_CTX]]).shape == (1, 256)
        except EngineError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    engine.close()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    assert set(outcomes) <= {"the engine is closed", "the engine was closed while it worked"}


def test_a_long_text_stops_when_the_engine_is_closed(
    f32: Path, sequences: dict[int, Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LlamaEngine(f32, small())
    pieces, working, closing = [], threading.Event(), threading.Event()
    decode = binding.Context.decode

    def slowly(self: binding.Context, batch: object) -> None:
        pieces.append(1)
        working.set()
        closing.wait()
        decode(self, batch)

    monkeypatch.setattr(binding.Context, "decode", slowly)
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(engine.decode, [sequences[N_CTX]])
        working.wait()
        closed = pool.submit(engine.close)
        while not engine._owner.stopping:
            pass
        closing.set()
        with pytest.raises(EngineError, match="closed while it worked"):
            answer.result()
        closed.result()
    assert len(pieces) == 1


def test_after_closing_every_call_says_so_and_closing_again_is_fine(f32: Path) -> None:
    engine = LlamaEngine(f32, small())
    engine.close()
    engine.close()
    for call in (lambda: engine.tokenize("a"), lambda: engine.decode([[5, engine.eos_id]])):
        with pytest.raises(EngineError, match="the engine is closed"):
            call()


# Broken numbers

BAD = 300  # a token that is a text of its own, and in none of the others


def broken(weights: Weights) -> Weights:
    """The same model, but NaN in the row of the token BAD."""
    table = weights["embed_tokens.weight"].copy()
    table[BAD] = np.nan
    return weights | {"embed_tokens.weight": table}


def loud(weights: Weights) -> Weights:
    """The same model, but BAD has values beyond f16 (65,504) in the first layer's cache."""
    table = weights["embed_tokens.weight"].copy()
    table[:, 0] = 0
    table[BAD, 0] = 1
    values = weights["layers.0.self_attn.v_proj.weight"].copy()
    values[:, 0] = 1e6
    return weights | {"embed_tokens.weight": table, "layers.0.self_attn.v_proj.weight": values}


@pytest.fixture(scope="module")
def changed(
    tmp_path_factory: pytest.TempPathFactory, weights: Weights, config: Config, tokenizer: Tokenizer
) -> Callable[[Callable[[Weights], Weights]], Path]:
    folder = tmp_path_factory.mktemp("changed")

    def path(change: Callable[[Weights], Weights]) -> Path:
        target = folder / f"{change.__name__}.gguf"
        return target if target.exists() else tiny.write_gguf(target, change(weights), config, tokenizer)

    return path


@pytest.mark.parametrize("tap", [True, False])
def test_a_text_without_a_vector_is_named_and_spoils_no_other(
    changed: Callable[..., Path],
    weights: Weights,
    config: Config,
    eos_id: int,
    tap: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, bad, two = [5, 6, eos_id], [5, BAD, 6, eos_id], [301, 7, 9, eos_id]
    with LlamaEngine(changed(broken), small(tap=tap)) as engine:
        assert engine.tap == tap
        with pytest.raises(BadVectorError, match="NaN, infinity or zero") as caught:
            engine.decode([one, bad, two])
        assert caught.value.index == 1
        caplog.clear()
        vectors = engine.decode([one, two])
    truth = np.array([oracle.embed(weights, config, ids) for ids in (one, two)])
    assert cosines(vectors, truth).min() >= 0.9999
    assert not caplog.records  # the NaN is gone from the cache: no second try was needed


def test_a_text_that_overflows_the_f16_cache_is_computed_again_in_f32(
    changed: Callable[..., Path],
    weights: Weights,
    config: Config,
    eos_id: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    batch = [[5, 6, eos_id], [5, BAD, 6, eos_id], [301, 7, 9, eos_id], [*range(100, 140), BAD, eos_id]]
    truth = np.array([oracle.embed(loud(weights), config, ids) for ids in batch])
    with LlamaEngine(changed(loud), small()) as engine:
        vectors = np.concatenate([engine.decode(batch[:3]), engine.decode(batch[3:])])
    assert "trying it alone with f32 KV" in caplog.text
    assert cosines(vectors, truth).min() >= 0.9999


def test_the_embedder_delivers_the_good_texts_around_a_bad_one(
    changed: Callable[..., Path], weights: Weights, config: Config, tokenizer: Tokenizer
) -> None:
    bad, good = tokenizer.decode([BAD]), ["The capital of China", "重力"]
    ids = [tokenizer.encode(text).ids for text in good]
    assert BAD not in ids[0] + ids[1]
    assert BAD in tokenizer.encode(bad).ids
    with Embedder(LlamaEngine(changed(broken), small()), "tiny") as embedder:
        first, error, second = embedder.stream(EmbedRequest([good[0], bad, good[1]]))
    assert isinstance(error, BadVectorError)
    assert error.index == 1
    for item, its_ids in ((first, ids[0]), (second, ids[1])):
        assert isinstance(item, Embedded)
        assert cosines(item.vector[None], oracle.embed(weights, config, its_ids)[None])[0] >= 0.9999


# What is heard of llama.cpp


def test_llama_cpps_lines_go_to_the_log_and_nothing_to_the_terminal(
    f32: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "q3e_local.llama")
    cut = tmp_path / "cut.gguf"
    # Only llama.cpp's own check finds a vocabulary key of another type.
    cut.write_bytes(f32.read_bytes().replace(b"tokenizer.ggml.merges", b"tokenizer.ggml.mergez"))
    with LlamaEngine(f32, small()) as engine:
        engine.decode([[engine.eos_id]])
    with pytest.raises(ModelFileError, match=r"llama\.cpp cannot load .*cut\.gguf: .*merges"):
        LlamaEngine(cut, small())
    assert capfd.readouterr() == ("", "")
    assert any(record.name == "q3e_local.llama" and "qwen3" in record.getMessage() for record in caplog.records)


def test_without_logging_set_up_a_load_and_a_failing_load_are_silent(f32: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(f32.read_bytes().replace(b"tokenizer.ggml.merges", b"tokenizer.ggml.mergez"))
    script = """
import sys
from pathlib import Path
from q3e_local.errors import ModelFileError
from q3e_local.llama.pooling_context import Counts, tap_agrees
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.prefixes import KeptPrefixes
with LlamaEngine(Path(sys.argv[1])) as engine:
    engine.decode([[engine.eos_id]])
try:
    LlamaEngine(Path(sys.argv[2]))
except ModelFileError:
    sys.exit(7)
"""
    answer = subprocess.run([sys.executable, "-c", script, f32, cut], capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout, answer.stderr) == (7, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT to one process is POSIX")
def test_ctrl_c_interrupts_a_long_text(tiny_gguf: MakeGguf) -> None:
    script = """
import sys
from pathlib import Path
from q3e_local.embedding.engine import EngineConfig
from q3e_local.llama.pooling_context import Counts, tap_agrees
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.prefixes import KeptPrefixes
engine = LlamaEngine(Path(sys.argv[1]), EngineConfig(n_batch=1, n_threads=1))
ids = [5] * 2047 + [engine.eos_id]
try:
    print("working", flush=True)
    while True:
        engine.decode([ids])
except KeyboardInterrupt:
    engine.close()
    sys.exit(7)
"""
    command = [sys.executable, "-c", script, tiny_gguf("f32")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        try:
            _, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, stderr) == (7, "")


# Settings


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_threads", 0),
        ("n_threads", 1025),
        ("n_gpu_layers", -1),
        ("n_ctx_max", 0),
        ("n_batch", 0),
        ("n_batch", 65_537),
        ("n_seq_max", 0),
        ("n_seq_max", 257),
    ],
)
def test_a_setting_out_of_range_is_refused_with_both_limits(option: str, value: int) -> None:
    with pytest.raises(OptionError, match=rf"^{option} must be between \d+ and \d+, got {value}$"):
        EngineConfig(**{option: value})


def test_the_default_is_one_thread_for_each_physical_core(f32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "physical_cores", lambda: 1)
    for asked, given in ((None, 1), (2, 2)):
        with LlamaEngine(f32, small(n_threads=asked)) as engine:
            assert engine.n_threads == given


# What a long life brings


def test_a_context_that_was_made_for_a_long_text_is_given_up_after_many_short_ones(f32: Path) -> None:
    with LlamaEngine(f32, small()) as engine:
        short, long = [5, engine.eos_id], [5] * 400 + [engine.eos_id]
        before = engine.decode([short])
        assert engine._contexts._long is None
        engine.decode([long])
        for _ in range(16):
            engine.decode([short])
            assert engine._contexts._long is not None
        np.testing.assert_array_equal(engine.decode([short]), before)
        assert engine._contexts._long is None


def test_an_engine_that_nobody_closed_frees_its_memory(f32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freed = []
    monkeypatch.setattr(binding.Model, "free", lambda self: freed.append(self))
    engine = LlamaEngine(f32, small())
    engine.decode([[5, engine.eos_id]])
    del engine
    gc.collect()
    assert len(freed) == 1


def test_layers_for_a_gpu_that_llama_cpp_was_not_built_for_are_refused(
    f32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "can_offload", lambda: False)
    with pytest.raises(OptionError, match="built without a GPU: n_gpu_layers must be 0, got 3"):
        LlamaEngine(f32, EngineConfig(n_gpu_layers=3))


def test_an_option_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(OptionError, match="no option 'threads'; choose from n_threads, n_gpu_layers"):
        q3e_local.load("demo", threads=2)


def test_a_llama_cpp_that_cannot_be_loaded_is_an_error_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "q3e_local.llama.engine")
    monkeypatch.setitem(sys.modules, "q3e_local.llama.binding", None)
    monkeypatch.delattr("q3e_local.llama.binding")
    with pytest.raises(EngineError, match=r"llama.cpp cannot be loaded: .*; install llama-cpp-python==0\.3\.36"):
        q3e_local.load("demo")


def test_short_texts_are_decoded_between_the_pieces_of_a_long_one(
    f32: Path, expected: dict[int, np.ndarray], sequences: dict[int, Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    with LlamaEngine(f32, small()) as engine, ThreadPoolExecutor(1) as other:
        done: list[int] = []
        short: list[Any] = []
        piece = context_module.PoolingContext.piece

        def recorded(self: Any, ids: Ids, start: int, **options: bool) -> int:
            end = piece(self, ids, start, **options)
            done.append(start)
            if len(done) == 2:  # while the long one is under way
                short.append(other.submit(engine.decode, [sequences[9]]))
                wait_until(lambda: engine._owner.n_waiting > 0)
            elif len(done) == 4:
                assert short[0].done()
            return end

        monkeypatch.setattr(context_module.PoolingContext, "piece", recorded)
        long = engine.decode([sequences[N_CTX]])
        assert len(done) > 4
        assert cosines(long, expected[N_CTX][None])[0] >= 0.9999
        assert cosines(short[0].result(), expected[9][None])[0] >= 0.9999


def test_a_short_text_is_computed_between_two_layers_of_a_long_ones_piece(
    f32: Path, expected: dict[int, np.ndarray], sequences: dict[int, Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    order, answers = "", list[Any]()
    piece, layer_done = context_module.PoolingContext.piece, context_module.PoolingContext._layer_done

    def one_piece(self: Any, ids: Ids, start: int, **options: bool) -> int:
        nonlocal order
        order += "("
        end = piece(self, ids, start, **options)
        order += ")"
        return end

    with LlamaEngine(f32, small(n_batch=2 * N_BATCH)) as engine, ThreadPoolExecutor(1) as other:
        compute = engine._contexts.batch.decode

        def batch(*arguments: Any) -> np.ndarray:
            nonlocal order
            order += "b"
            return compute(*arguments)

        def one_layer(self: Any) -> bool:
            nonlocal order
            order += "l"
            if order == "(l":
                answers.append(other.submit(engine.decode, [sequences[9]]))
                wait_until(lambda: engine._owner.n_waiting > 0)
            return layer_done(self)

        monkeypatch.setattr(engine._contexts.batch, "decode", batch)
        monkeypatch.setattr(context_module.PoolingContext, "piece", one_piece)
        monkeypatch.setattr(context_module.PoolingContext, "_layer_done", one_layer)
        long = engine.decode([sequences[2 * N_BATCH + 1]])
        assert order == "(lb" + "l" * (engine.info.n_layer - 1) + ")"
        assert cosines(answers[0].result(), expected[9][None])[0] >= 0.9999
        assert cosines(long, expected[2 * N_BATCH + 1][None])[0] >= 0.9999


def test_slow_pieces_get_smaller_and_the_vector_stays(
    f32: Path, expected: dict[int, np.ndarray], sequences: dict[int, Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("q3e_local.llama.stride.STEP_S", 0.0)
    pieces: list[int] = []
    with LlamaEngine(f32, small(n_batch=128)) as engine:
        engine.decode([sequences[N_CTX]], None, pieces.append)
        assert pieces == [128] * 4  # nobody else has come: nothing is gained by smaller ones
        pieces.clear()
        engine.decode([sequences[9]])
        long = engine.decode([sequences[N_CTX - 1]], None, pieces.append)
        assert pieces == [128, 64, 64, 64, 64, 127]
        assert cosines(long, expected[N_CTX - 1][None])[0] >= 0.9999


def test_a_long_text_stops_between_two_layers_when_the_engine_is_closed(
    f32: Path, sequences: dict[int, Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_layers, working, closing = 0, threading.Event(), threading.Event()
    layer_done = context_module.PoolingContext._layer_done

    def slowly(self: Any) -> bool:
        nonlocal n_layers
        n_layers += 1
        working.set()
        assert closing.wait(20)
        return layer_done(self)

    monkeypatch.setattr(context_module.PoolingContext, "_layer_done", slowly)
    engine = LlamaEngine(f32, small())
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(engine.decode, [sequences[N_CTX]])
        assert working.wait(20)
        closed = pool.submit(engine.close)
        wait_until(lambda: engine._owner.stopping)
        closing.set()
        with pytest.raises(EngineError, match="closed while it worked"):
            answer.result(20)
        closed.result(20)
    assert n_layers == 1


def test_batches_inside_a_long_text_that_ctrl_c_gave_up_do_not_free_its_context(
    f32: Path, sequences: dict[int, Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was freed while llama.cpp computed with it, which ends the process."""
    monkeypatch.setattr(contexts_module, "_SHORT_BEFORE_FREEING", 0)
    order, answers, interrupted = "", list[Any](), threading.Event()
    layer_done = context_module.PoolingContext._layer_done

    def one_layer(self: Any) -> bool:
        nonlocal order
        order += "l"
        if order == "l":
            _thread.interrupt_main()
            assert interrupted.wait(20)
            answers.append(other.submit(engine.decode, [sequences[9]]))
            wait_until(lambda: engine._owner.n_waiting > 0)
        return layer_done(self)

    def free(self: Any) -> None:
        nonlocal order
        order += "f"

    with LlamaEngine(f32, small(n_batch=2 * N_BATCH)) as engine, ThreadPoolExecutor(1) as other:
        with monkeypatch.context() as patch:
            patch.setattr(context_module.PoolingContext, "_layer_done", one_layer)
            patch.setattr(context_module.PoolingContext, "free", free)
            with pytest.raises(KeyboardInterrupt):
                engine.decode([sequences[2 * N_BATCH + 1]])
            interrupted.set()
            engine._owner.do(lambda: None)  # the piece is done
        assert len(answers[0].result(20)) == 1
        assert order == "l" * engine.info.n_layer


def test_nothing_comes_between_the_layers_on_a_gpu(f32: Path, sequences: dict[int, Ids]) -> None:
    with LlamaEngine(f32, small(n_batch=2 * N_BATCH)) as engine:
        n_calls = []
        for on_gpu in (True, False):
            calls: list[None] = []
            between = partial(calls.append, None)
            contexts = contexts_module.Contexts(engine._model, engine.info, engine.settings, 1, True, on_gpu, between)
            contexts.long(N_CTX, N_CTX).decode([sequences[2 * N_BATCH + 1]])
            contexts.free()
            n_calls.append(len(calls))
        assert n_calls == [0, engine.info.n_layer]


def wait_until(is_true: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if is_true():
            return
        time.sleep(0.001)
    pytest.fail("it did not come to that")


# Prefixes that come again


@pytest.fixture
def alike(eos_id: int) -> list[Ids]:
    """Three short sequences with their first 12 ids in common, and one with none."""
    rng = np.random.default_rng(5)
    head = rng.integers(0, tiny.N_VOCAB - 10, 12).tolist()
    tails = [[*rng.integers(0, tiny.N_VOCAB - 10, n).tolist(), eos_id] for n in (1, 3, 4, 4)]
    return [head + tails[0], tails[3], head + tails[1], head + tails[2]]


def oracles(weights: Weights, config: Config, sequences: Sequence[Ids]) -> np.ndarray:
    return np.stack([oracle.embed(weights, config, ids) for ids in sequences])


def test_a_shared_prefix_is_computed_once_for_a_batch_and_not_again_in_the_next(
    f32: Path, alike: list[Ids], weights: Weights, config: Config
) -> None:
    n_own = sum(map(len, alike)) - 3 * 12
    expected = oracles(weights, config, alike)
    with LlamaEngine(f32, small()) as engine:
        for n_decodes, n_tokens, n_reused in ((1, 12 + n_own, 24), (2, 12 + 2 * n_own, 60)):
            vectors = engine.decode(alike, [12, 0, 12, 12])
            assert cosines(vectors, expected).min() >= 0.9999
            assert engine.counts == Counts(n_decodes, n_tokens, n_reused)
        # One by one, as a server's clients ask; a shorter and a longer prefix of the same beginning come from it too.
        for ids, n_prefix in ((alike[0], 12), (alike[2], 10), (alike[3], 14)):
            before = engine.counts.n_tokens
            assert cosines(engine.decode([ids], [n_prefix]), oracles(weights, config, [ids])).min() >= 0.9999
            assert engine.counts.n_tokens - before == len(ids) - min(n_prefix, 12)
        assert cosines(engine.decode(alike[:2]), expected[:2]).min() >= 0.9999  # and nobody has to share


def test_two_instructions_in_one_batch_do_not_mix(f32: Path, eos_id: int, weights: Weights, config: Config) -> None:
    rng = np.random.default_rng(6)
    one, two = rng.integers(0, tiny.N_VOCAB - 10, (2, 9)).tolist()
    sequences = [[*head, *tail, eos_id] for tail in ([3], [4, 5]) for head in (one, two)]
    with LlamaEngine(f32, small()) as engine:
        for _ in range(3):
            assert cosines(engine.decode(sequences, [9] * 4), oracles(weights, config, sequences)).min() >= 0.9999
        assert engine.counts == Counts(3, 2 * 9 + 3 * (2 * 2 + 2 * 3), 2 * 9 + 2 * 4 * 9)


def test_a_prefix_may_be_all_but_the_last_id_or_more_than_there_is(
    f32: Path, eos_id: int, weights: Weights, config: Config
) -> None:
    ids = [*range(5, 20), eos_id]
    with LlamaEngine(f32, small()) as engine:
        for n_prefix in (15, 16, 99):
            vectors = engine.decode([ids, ids], [n_prefix] * 2)
            assert cosines(vectors, oracles(weights, config, [ids, ids])).min() >= 0.9999


def test_only_a_few_prefixes_are_kept_and_the_least_recently_used_goes() -> None:
    kept = KeptPrefixes(n_max=2, n_bytes_max=400)
    heads = [tuple(range(start, start + 10)) for start in (0, 100, 200)]
    for place, head in enumerate(heads[:2]):
        kept.keep(head, np.full(40, place, np.uint8))
    assert kept.find([*heads[0], 7], 99)[0] == 10  # used: the other is now the older one
    kept.keep(heads[2], np.full(40, 2, np.uint8))
    assert [kept.find(head, 99)[0] for head in heads] == [10, 0, 10]
    assert kept.n_bytes == 80
    assert kept.find(heads[0][:7], 99) == (0, None)  # too short to be worth it
    assert kept.find(heads[0], 9) == (0, None)  # it needs 10 cells to be put back


def test_a_large_prefix_replaces_the_large_one_before_it_and_no_instruction() -> None:
    kept = KeptPrefixes(n_max=2, n_bytes_max=400)
    heads = [tuple(range(start, start + 10)) for start in (0, 100, 200, 300)]
    for place, head in enumerate(heads):
        kept.keep(head, np.full(40 if place < 2 else 150, place, np.uint8))
    assert [kept.find(head, 99)[0] for head in heads] == [10, 10, 0, 10]
    assert not kept.room_for(201)
    kept.clear()
    assert [kept.find(head, 99)[0] for head in heads] == [0] * 4


def test_a_kept_prefix_that_no_longer_fits_beside_the_others_is_computed_anew(
    f32: Path, eos_id: int, weights: Weights, config: Config
) -> None:
    rng = np.random.default_rng(8)
    first, other = rng.integers(0, tiny.N_VOCAB - 10, (2, 200)).tolist()
    long, short = [*first, eos_id], [*first[:20], 5, eos_id]
    with LlamaEngine(f32, small(n_batch=256)) as engine:
        engine.decode([long], [200])
        engine.decode([[*other, eos_id]], [200])
        # 200 cells for the other's, and 200 to put the first one's back before it is cut to 20: more than 256.
        batch = [[*other, 6, eos_id], short]
        pooled = engine.decode(batch, [200, 20])
    assert cosines(pooled, oracles(weights, config, batch)).min() >= 0.9999


def test_without_the_tap_what_fits_by_sharing_alone_is_decoded_apart(
    f32: Path, eos_id: int, weights: Weights, config: Config
) -> None:
    head = list(range(20, 36))
    sequences = [[*head, 100 + place, eos_id] for place in range(5)]
    with LlamaEngine(f32, small(tap=False)) as engine:
        assert cosines(engine.decode(sequences, [16] * 5), oracles(weights, config, sequences)).min() >= 0.9999


def test_of_texts_decoded_apart_the_one_without_a_vector_is_named(changed: Callable[..., Path], eos_id: int) -> None:
    head = list(range(20, 36))
    sequences = [[*head, 100 + place, eos_id] for place in range(4)] + [[*head, BAD, eos_id]]
    with LlamaEngine(changed(broken), small(tap=False)) as engine, pytest.raises(BadVectorError) as caught:
        engine.decode(sequences, [16] * 5)
    assert caught.value.index == 4


def test_a_long_text_keeps_its_context_while_many_batches_go_between_its_pieces(
    f32: Path, eos_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [*range(5, 300), eos_id]
    pool = ThreadPoolExecutor(1)
    with LlamaEngine(f32, small()) as engine:
        begun, go_on = threading.Event(), threading.Event()
        do = engine._owner.do

        def slow(work: Callable[..., Any], *arguments: Any) -> Any:
            if work == engine._end_long:
                begun.set()
                assert go_on.wait(20)
            return do(work, *arguments)

        monkeypatch.setattr(engine._owner, "do", slow)
        asked = pool.submit(engine.decode, [long])
        assert begun.wait(20)
        for place in range(40):
            engine.decode([[100 + place, eos_id]])
        go_on.set()
        asked.result(20)
        engine.decode([[5, eos_id]])
        before = engine.counts.n_tokens
        engine.decode([[*long[:-1], 7, eos_id]])
        assert engine.counts.n_tokens - before == 64  # its context is still there
    pool.shutdown()


def test_settings_that_cannot_be_used_leave_the_engine_as_it_was(
    f32: Path, eos_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LlamaEngine(f32, small()) as engine:
        before = engine.decode([[5, 6, eos_id]])
        monkeypatch.setattr(machine, "available_memory", lambda: 1000)
        with pytest.raises(NotEnoughMemoryError, match="a batch of 64 tokens needs"):
            engine.use(engine.settings.changed("n_batch", 64, Reason("given", "given")))
        assert engine.n_batch == N_BATCH
        np.testing.assert_array_equal(engine.decode([[5, 6, eos_id]]), before)


def test_long_texts_that_begin_alike_go_on_from_where_they_differ(
    f32: Path, eos_id: int, weights: Weights, config: Config
) -> None:
    rng = np.random.default_rng(7)
    head = rng.integers(0, tiny.N_VOCAB - 10, 3 * N_BATCH + 5).tolist()
    sequences = [[*head, *rng.integers(0, tiny.N_VOCAB - 10, n).tolist(), eos_id] for n in (5, 90, 3)]
    with LlamaEngine(f32, small()) as engine:
        for place, ids in enumerate(sequences):
            before = engine.counts.n_tokens
            assert cosines(engine.decode([ids]), oracles(weights, config, [ids])).min() >= 0.9999
            # The last 64 tokens are computed anew in any case.
            assert engine.counts.n_tokens - before == (max(64, len(ids) - len(head)) if place else len(ids))
        other = [*reversed(sequences[0][:-1]), eos_id]
        assert cosines(engine.decode([other]), oracles(weights, config, [other])).min() >= 0.9999


def test_a_prefix_of_a_text_without_a_vector_is_not_kept(changed: Callable[..., Path], eos_id: int) -> None:
    head = [BAD, *range(5, 15)]
    with LlamaEngine(changed(broken), small()) as engine:
        for _ in range(2):
            with pytest.raises(BadVectorError):
                engine.decode([[*head, 7, eos_id]], [11])
        assert engine.counts.n_reused == 0
        assert np.isfinite(engine.decode([[*range(5, 15), eos_id]], [8])).all()


@dataclass
class FakeClock:
    """Time passes by what is computed: a batch takes as long as `cost` says for the threads at work."""

    cost: Callable[[int], float]
    n_threads: list[int] = field(default_factory=list)
    now: float = 0.0
    looks: int = 0

    def __call__(self) -> float:
        self.looks += 1
        if self.looks % 2 == 0:  # the second look of a batch
            self.now += self.cost(self.n_threads[-1])
        return self.now


def self_tuned(
    f32: Path, monkeypatch: pytest.MonkeyPatch, cost: Callable[[int], float], batch: list[Ids], **options: Any
) -> tuple[LlamaEngine, list[np.ndarray], FakeClock]:
    """An engine after 20 batches on a machine of 1 core with 2 CPUs."""
    clock, set_threads = FakeClock(cost), binding.Context.set_threads
    monkeypatch.setattr(machine, "physical_cores", lambda: 1)
    monkeypatch.setattr(machine, "logical_cpus", lambda: 2)

    def counted(self: binding.Context, n_threads: int) -> None:
        clock.n_threads.append(n_threads)
        set_threads(self, n_threads)

    monkeypatch.setattr(binding.Context, "set_threads", counted)
    config = EngineConfig(**{"n_batch": N_BATCH, "self_tuning": True} | options)
    engine = LlamaEngine(f32, config, clock)
    return engine, [engine.decode(batch) for _ in range(20)], clock


@pytest.fixture
def full(sequences: dict[int, Ids]) -> list[Ids]:
    return [sequences[2], sequences[9], sequences[9], sequences[9]]


def test_full_batches_of_real_work_find_the_fastest_number_of_threads(
    f32: Path, full: list[Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, vectors, clock = self_tuned(f32, monkeypatch, lambda n: 1 / n, full)
    with engine:
        assert engine.n_threads == 2
        assert engine.settings.explained("n_threads") == "n_threads 2 (fastest in this work)"
        # Five rounds of both, after each the old number again; then the winner for good.
        assert clock.n_threads == [1, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 2]
        for one in vectors:
            np.testing.assert_array_equal(one, vectors[0])


@pytest.mark.parametrize("cost", [lambda n: 1.0, lambda n: float(n), lambda n: 1 - n / 100])
def test_what_is_not_clearly_faster_changes_nothing(
    f32: Path, full: list[Ids], monkeypatch: pytest.MonkeyPatch, cost: Callable[[int], float]
) -> None:
    engine, _, clock = self_tuned(f32, monkeypatch, cost, full)
    with engine:
        assert (engine.n_threads, clock.n_threads[-1]) == (1, 1)
        assert engine.settings.reasons["n_threads"].source == "default"


@pytest.mark.parametrize("options", [{"self_tuning": False}, {"n_threads": 1}])
def test_nothing_is_tried_unless_it_is_wanted_and_open(
    f32: Path, full: list[Ids], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    engine, _, clock = self_tuned(f32, monkeypatch, lambda n: 1 / n, full, **options)
    with engine:
        assert (engine.n_threads, clock.n_threads, clock.looks) == (1, [], 0)


def test_small_batches_are_not_tried_with(
    f32: Path, sequences: dict[int, Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _, clock = self_tuned(f32, monkeypatch, lambda n: 1 / n, [sequences[9]])
    with engine:
        assert clock.looks == 0


def test_other_settings_can_be_used_without_loading_anew(
    f32: Path, sequences: dict[int, Ids], expected: dict[int, np.ndarray]
) -> None:
    with LlamaEngine(f32, small()) as engine:
        engine.decode([sequences[N_CTX]])
        reason = engine.settings.reasons["n_batch"]
        for name, value in {"n_threads": 2, "n_batch": 8}.items():
            engine.use(engine.settings.changed(name, value, reason))
            assert getattr(engine.settings, name) == value
            for n in (1, 9, N_CTX):
                assert cosines(engine.decode([sequences[n]]), expected[n][None])[0] >= 0.9999


def test_an_engine_runs_as_tuned_and_as_given(f32: Path) -> None:
    digest = inspect(f32).digest
    name = in_use.chosen().name
    place = tuned.here(binding.version(), binding.features(), False, name)
    tuned.keep(digest, place, Tuned(n_threads=2, n_batch=96, day="2026-11-20"))
    other = replace(place, kernels="avx2" if name == "off" else "off")
    tuned.keep(digest, other, Tuned(n_threads=3, n_batch=128, day="2026-11-21"))
    with LlamaEngine(f32, EngineConfig()) as engine:
        assert (engine.n_threads, engine.n_batch) == (2, 96)
    with LlamaEngine(f32, EngineConfig(n_batch=64)) as engine:
        assert (engine.n_threads, engine.n_batch) == (2, 64)


def test_the_tap_is_proved_once_for_a_file_and_a_build(
    tiny_gguf: MakeGguf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proofs: list[Path] = []

    def agrees(model: binding.Model, info: Any, *rest: Any) -> str | None:
        proofs.append(info.path)
        return tap_agrees(model, info, *rest)

    def load(path: Path, **options: Any) -> None:
        with LlamaEngine(path, small(**options)) as engine:
            assert engine.tap

    monkeypatch.setattr("q3e_local.llama.engine.tap_agrees", agrees)
    monkeypatch.setattr("q3e_local.llama.engine._QUICK_BYTES", 0)
    one, other = tiny_gguf("f32"), tiny_gguf("f16")
    for _ in range(2):
        load(one)
        load(one, n_threads=2, n_batch=8)  # of no account
    assert proofs == [one]
    load(other)
    assert proofs == [one, other]
    monkeypatch.setattr(binding, "build", lambda: "another")
    load(one)
    assert len(proofs) == 3
    (tmp_path / "file").touch()
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "file"))  # where nothing can be written
    load(one)
    load(one)
    assert len(proofs) == 5


@pytest.mark.parametrize("quantization", ["f32", "q8_0", "q4_k_m"])
def test_weights_are_never_repacked(tiny_gguf: MakeGguf, monkeypatch: pytest.MonkeyPatch, quantization: str) -> None:
    """Repacked for AMX, by a llama.cpp that gcc 12 compiled, they ended the process with SIGILL."""
    asked: list[bool] = []
    load = binding.lib.llama_model_load_from_file

    def loaded(path: bytes, params: Any) -> Any:
        asked.append(params.use_extra_bufts)
        return load(path, params)

    monkeypatch.setattr(binding.lib, "llama_model_load_from_file", loaded)
    with LlamaEngine(tiny_gguf(quantization), small()):
        assert asked == [False]


def test_a_proof_that_failed_is_not_remembered(f32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("q3e_local.llama.engine._QUICK_BYTES", 0)
    monkeypatch.setattr("q3e_local.llama.engine.tap_agrees", lambda *arguments: "no")
    for _ in range(2):
        with LlamaEngine(f32, small()) as engine:
            assert not engine.tap
    monkeypatch.setattr("q3e_local.llama.engine.tap_agrees", tap_agrees)
    with LlamaEngine(f32, small()) as engine:
        assert engine.tap


def test_the_build_has_the_libraries_that_compute() -> None:
    names = [name for name, size, _ in binding.build() if size > 10_000]
    assert any("llama" in name for name in names)
    assert any("ggml-cpu" in name for name in names)
