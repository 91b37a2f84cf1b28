"""Vectors of a K-quant model, with and without our kernels, held to the truth: the same weights in float64.

Two exact ways of computing 8-bit products differ from each other, as a difference of 1e-7 flips a rounding in the
next layer. So each is compared with the truth, and not with the other.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import oracle
import pytest
import tiny
from gguf import GGUFReader
from gguf.quants import dequantize
from kernel_library import program
from oracle import Config, Weights
from tokenizers import Tokenizer

from q3e_local.embedding.engine import EngineConfig
from q3e_local.llama.engine import LlamaEngine

# Heads as wide as in Qwen3-Embedding, and every depth a multiple of 256, as K-quants have it.
CONFIG = Config(n_layer=3, n_embd=512, n_ff=1024, n_head=8, n_head_kv=2, head_dim=128)
LENGTHS = [*range(5, 150, 5), 201, 299]  # packed into batches
LONG = [521, 700, 1033]  # computed in pieces


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    path = tmp_path_factory.mktemp("kernels") / "q4_k_m.gguf"
    return tiny.write_gguf(path, tiny.tiny_weights(CONFIG), CONFIG, tokenizer, "q4_k_m")


@pytest.fixture(scope="module")
def sequences(eos_id: int) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [[*random.integers(0, 900, n - 1).tolist(), eos_id] for n in [*LENGTHS, *LONG]]


def stored_weights(model: Path) -> Weights:
    """What the file's blocks stand for, by the names that the oracle knows."""
    names = {tiny._gguf_name(name): name for name in tiny.tiny_weights(CONFIG)}
    return {
        names[tensor.name]: dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        for tensor in GGUFReader(model).tensors
    }


@pytest.fixture(scope="module")
def truth(model: Path, sequences: list[list[int]]) -> np.ndarray:
    weights = stored_weights(model)
    return np.array([oracle.hidden_states(weights, CONFIG, ids)[-1] for ids in sequences])


_COMPUTING = """
import json, sys
from pathlib import Path
import numpy as np
from q3e_local.embedding.batching import pack
from q3e_local.embedding.engine import EngineConfig
from q3e_local.llama.engine import LlamaEngine
sequences = json.loads(Path(sys.argv[2]).read_text())
with LlamaEngine(Path(sys.argv[1]), EngineConfig(n_threads=int(sys.argv[4]))) as engine:
    before = engine.kernels_taken
    pooled = np.empty((len(sequences), engine.n_embd), np.float32)
    for rows, _ in pack(sequences, [0] * len(sequences), engine.n_batch, engine.n_seq_max):
        pooled[rows] = engine.decode([sequences[row] for row in rows])
    taken = engine.kernels_taken.since(before)
    np.save(sys.argv[3], pooled)
print(json.dumps([engine.kernels.variant, taken.products, taken.attentions]))
"""


@pytest.fixture(scope="module")
def computed(
    tmp_path_factory: pytest.TempPathFactory, model: Path, sequences: list[list[int]]
) -> Callable[[str, int], tuple[np.ndarray, int, int]]:
    """`computed("off")`: the vectors, and how many products and attentions were ours; each way is computed once."""
    folder, found = tmp_path_factory.mktemp("computed"), {}
    ids = folder / "ids.json"
    ids.write_text(json.dumps(sequences))

    def compute(name: str, n_threads: int = 2) -> tuple[np.ndarray, int, int]:
        if (name, n_threads) not in found:
            file = folder / f"{name}-{n_threads}.npy"
            done = program(_COMPUTING, model, ids, file, n_threads, Q3E_KERNELS=name)
            assert done.returncode == 0, done.stderr
            variant, *taken = json.loads(done.stdout)
            assert variant == (None if name == "off" else name)
            found[name, n_threads] = (np.load(file), *taken)
        return found[name, n_threads]

    return compute


def distances(vectors: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 - cosine of each row."""
    vectors = vectors.astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(truth, axis=1)
    return 1 - (vectors * truth).sum(axis=1) / norms


def is_no_farther(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether the mean of `ours` is above that of `theirs` by no more than chance explains, text by text."""
    more = ours - theirs
    return bool(more.mean() <= 3 * more.std(ddof=1) / np.sqrt(len(more)))


def test_counts_say_who_computed(computed, name_of_variant):
    _, products, attentions = computed(name_of_variant)
    n_batches = attentions / CONFIG.n_layer
    assert attentions > 0
    # The last layer's feed-forward has a row for each text, which may be too few to take.
    n_most, n_least = 7 * CONFIG.n_layer, 7 * CONFIG.n_layer - 4
    assert n_least * n_batches <= products <= n_most * n_batches
    assert computed("off")[1:] == (0, 0)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_no_vector_is_farther_from_the_truth_than_llama_cpps(computed, truth, name_of_variant, n_threads):
    ours, theirs = (distances(computed(name, n_threads)[0], truth) for name in (name_of_variant, "off"))
    assert theirs.max() < 2e-2  # else there is no truth to be held to
    assert is_no_farther(ours, theirs), (ours.mean(), theirs.mean())
    assert ours.max() <= 1.5 * theirs.max()


def test_a_rounding_that_is_coarser_would_be_seen(computed, truth):
    """The test above can fail: vectors with a little noise are farther."""
    theirs, *_ = computed("off")
    noise = np.random.default_rng(0).standard_normal(theirs.shape)
    noise *= np.linalg.norm(theirs, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    far = distances(theirs, truth)
    assert not is_no_farther(distances(theirs + np.sqrt(far.mean()) * noise, truth), far)
    assert is_no_farther(far, far)


def test_two_engines_in_a_process(model, sequences):
    """Each engine has its own thread, and that its own team of threads: no engine takes the batches of the other."""
    ids = [sequences[n] for n in (20, 25)]
    config = EngineConfig(n_threads=2)
    with LlamaEngine(model, config) as first, LlamaEngine(model, config) as second:
        assert first.kernels is second.kernels
        expected = [first.decode([each]) for each in ids]
        found: dict[int, list[np.ndarray]] = {0: [], 1: []}

        def work(place: int, engine: LlamaEngine) -> None:
            for _ in range(10):
                found[place].append(engine.decode([ids[place]]))

        threads = [threading.Thread(target=work, args=pair) for pair in enumerate((first, second))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for place, vectors in found.items():
        assert len(vectors) == 10
        assert all(np.array_equal(vector, expected[place]) for vector in vectors)
