"""An engine that a reader can predict by eye, for every test that needs no real vectors.

Knows the Engine protocol and nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from q3e_local.errors import BadVectorError, EngineError


class FakeEngine:
    """Bytes are tokens; the vector is (last id, number of ids, 1, 0, 0, …).

    `texts`, `batches` and `prefixes` remember what it was given. A sequence that holds the bytes of
    `bad` has no vector.
    """

    digest = "fa" * 32
    kind = "embedder"
    n_embd = 64
    n_keepable = 1_000_000  # any vector may be kept
    eos_id = 256

    def __init__(
        self,
        n_ctx_max: int = 1000,
        n_batch: int = 32,
        n_seq_max: int = 8,
        bad: str | None = None,
        added_tokens: tuple[str, ...] = (),
    ) -> None:
        self.n_ctx_max, self.n_batch, self.n_seq_max = n_ctx_max, n_batch, n_seq_max
        self.added_tokens = added_tokens
        self.texts: list[str] = []
        self.batches: list[list[list[int]]] = []
        self.prefixes: list[list[int]] = []
        self.closed = False
        self._bad = None if bad is None else bad.encode()

    @property
    def n_decodes(self) -> int:
        return len(self.batches)

    def tokenize(self, text: str) -> list[int]:
        self._open()
        self.texts.append(text)
        return list(text.encode())

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        self._open()
        return [b"<end>" if id_ == self.eos_id else bytes([id_]) for id_ in ids]

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        self._open()
        self.prefixes.append(list(n_prefix or [0] * len(sequences)))
        self.batches.append([list(ids) for ids in sequences])
        for index, ids in enumerate(sequences):
            if self._bad is not None and self._bad in bytes(i for i in ids if i < 256):
                raise BadVectorError("the fake has no vector for this text", index)
        vectors = np.zeros((len(sequences), self.n_embd), np.float32)
        for row, ids in zip(vectors, sequences, strict=True):
            row[:3] = ids[-1], len(ids), 1
        return vectors

    def close(self) -> None:
        self.closed = True

    def _open(self) -> None:
        if self.closed:
            raise EngineError("the engine is closed")


def seen(vector: np.ndarray) -> tuple[int, int]:
    """The last id and the number of ids that a unit vector of the fake stands for."""
    last, n_ids = vector[:2] / vector[2]
    return round(float(last)), round(float(n_ids))
