"""An engine whose vectors a test plants, and questions and passages whose vectors say which answers which.

The vector of a text is what the test says it is, whatever the prompt. Knows nothing of measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from fake import FakeEngine

from q3e_local.cache import VectorCache
from q3e_local.embedding.embedder import Embedder
from q3e_local.evaluation import Corpus, Document, Models, Question, Questions
from q3e_local.reranking.reranker import Reranker

N_QUESTIONS, N_EMBD = 40, 256
_BEFORE_TEXT = "Query:"


class PlantedEngine(FakeEngine):
    """Bytes are tokens. `decoded` remembers each text that was computed, and `prompts` the same with its prompt."""

    def __init__(self, vectors: Mapping[str, np.ndarray]) -> None:
        super().__init__(n_ctx_max=4000, n_batch=64, n_seq_max=4)
        self.n_embd = len(next(iter(vectors.values())))
        self.digest = "9a" * 32
        self.decoded: list[str] = []
        self.prompts: list[str] = []
        self._vectors = vectors

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        self._open()
        prompts = [bytes(ids[:-1]).decode() for ids in sequences]
        texts = [prompt.rpartition(_BEFORE_TEXT)[2] for prompt in prompts]
        self.prompts += prompts
        self.decoded += texts
        return np.array([self._vectors[text] for text in texts], np.float32)


def planted(vectors: Mapping[str, np.ndarray], cache: VectorCache | None = None) -> Embedder:
    """A model named `planted` with the engine, `embedder.engine`."""
    return Embedder(PlantedEngine(vectors), "planted", cache=cache)


def questions(n: int = N_QUESTIONS) -> Questions:
    """Question i is answered by passage i."""
    return Questions(tuple(Question(f"q{i}", f"question {i}", {f"p{i}": 1}, f"asked:{i}") for i in range(n)))


def corpus(n: int = N_QUESTIONS) -> Corpus:
    return Corpus("planted texts", tuple(Document(f"p{i}", f"passage {i}") for i in range(n)))


def vectors(n_telling: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A question's vector is that of its passage with noise, but for the first numbers, which are noise alone.

    `n_telling` of the last numbers tell passages apart.
    """
    rng = np.random.default_rng(seed)
    found = {}
    for i in range(N_QUESTIONS):
        passage, question = rng.normal(size=(2, N_EMBD))
        question[N_EMBD - n_telling :] = passage[N_EMBD - n_telling :] + 0.3 * rng.normal(size=n_telling)
        found |= {f"passage {i}": passage, f"question {i}": question}
    return found


def opened(*models: Embedder, reranker: Reranker | None = None) -> Models:
    """The models by their names; the first one without a name. They stay open."""

    @contextmanager
    def load(name: str | None) -> Iterator[Embedder]:
        yield next(model for model in models if name in (None, model.model))

    @contextmanager
    def load_reranker() -> Iterator[Reranker]:
        assert reranker is not None
        yield reranker

    return Models(load, load_reranker)
