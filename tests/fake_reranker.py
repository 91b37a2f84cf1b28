"""A reranker whose answers a reader can predict by eye: "!" in a document speaks for it, "?" against it.

Knows the Engine protocol and the prompt's words; nothing of models. `python fake_reranker.py ARGUMENTS` is q3e-local
with this reranker.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from fake import FakeEngine

import q3e_local
from q3e_local.cli import main
from q3e_local.errors import BadVectorError
from q3e_local.reranking.reranker import Reranker

_BEFORE, _BEHIND = "<Document>: ", "<|im_end|>"


def logit(document: str) -> int:
    """How many "!" a document has, less its "?"."""
    return document.count("!") - document.count("?")


class FakeRerankEngine(FakeEngine):
    """Bytes are tokens; the one number of a prompt is the `logit` of its document. `read` remembers the documents.

    A document that holds `bad` has no number.
    """

    kind = "reranker"
    digest = "fe" * 32
    n_embd = 1

    def __init__(self, n_ctx_max: int = 2000, n_batch: int = 2000, bad: str | None = None) -> None:
        super().__init__(n_ctx_max, n_batch)
        self.read: list[str] = []
        self.prompts: list[str] = []
        self._bad_text = bad

    def decode(self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None) -> np.ndarray:
        self._open()
        prompts = [bytes(ids).decode() for ids in sequences]
        documents = [prompt.split(_BEFORE, 1)[1].rsplit(_BEHIND, 1)[0] for prompt in prompts]
        for index, document in enumerate(documents):
            if self._bad_text is not None and self._bad_text in document:
                raise BadVectorError("the fake has no number for this text", index)
        self.prefixes.append(list(n_prefix or [0] * len(sequences)))
        self.prompts += prompts
        self.read += documents
        return np.array([[logit(document)] for document in documents], np.float32)


def fake_reranker(**options: Any) -> Reranker:
    """A reranker with the fake, `reranker.engine`, and without a cache."""
    return Reranker(FakeRerankEngine(**options), "fake-reranker")


if __name__ == "__main__":
    q3e_local.load_reranker = lambda model, **options: fake_reranker()
    main(sys.argv[1:])
