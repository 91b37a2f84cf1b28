"""What a request gets of a model in memory: `Model`.

Knows the model's worker, prompts and queue, and a thread for calls about words; nothing of loading and unloading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from q3e_local.embedding.preparing import Defaults, Preparation, TextPreparation, resolve
from q3e_local.embedding.prompts import Prompts, normalizer
from q3e_local.embedding.request import EmbedRequest
from q3e_local.reranking.preparing import PairPreparation, RankRequest
from q3e_local.reranking.preparing import resolve as resolve_pairs
from q3e_local.reranking.prompts import RerankPrompts
from q3e_local.server.workers.batch_queue import BatchQueue
from q3e_local.server.workers.worker import WorkerEngine

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Model:
    """A model in memory. `queue` decodes the texts of all requests."""

    name: str
    worker: WorkerEngine
    prompts: Prompts
    queue: BatchQueue
    rerank_prompts: RerankPrompts = RerankPrompts()  # noqa: RUF009 (frozen)
    # The thread ends when the model is unloaded and no request holds this record any more.
    _words: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="q3e-words"), repr=False, compare=False
    )

    def prepare(self, request: EmbedRequest, defaults: Defaults) -> Preparation:
        """What a request does to a text before this model decodes it. Raises OptionError."""
        return TextPreparation(self.worker, resolve(request, self.worker, self.name, self.prompts, defaults))

    def prepare_pairs(self, request: RankRequest) -> PairPreparation:
        """What a request does to a document before this model decodes it. Tokenizes. Raises OptionError."""
        resolved = resolve_pairs(request, self.worker, self.name, self.rerank_prompts)
        return PairPreparation(self.worker, resolved, request.max_document_tokens)

    def normalized(self, text: str) -> str:
        """NFC as the reference tokenizer applies it."""
        return normalizer(self.worker.added_tokens)(text)

    async def call(self, work: Callable[..., Answer], *arguments: object) -> Answer:
        """Run work that has the worker tokenize, or write text, on this model's thread.

        The worker takes one such call at a time. On the few threads that all requests share, calls that wait for a
        worker that hangs or starts again would leave no thread to requests for other models.
        """
        return await asyncio.get_running_loop().run_in_executor(self._words, work, *arguments)
