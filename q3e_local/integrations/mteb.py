"""Models for mteb 2: `Encoder` for an embedder, `CrossEncoder` for a reranker, each task with its own instruction.

    import mteb, q3e_local
    from q3e_local.integrations.mteb import Encoder

    with q3e_local.load("qwen3-embedding:0.6b", cache=True) as embedder:
        mteb.evaluate(Encoder(embedder, dim=512), mteb.get_tasks(["ArguAna", "STSBenchmark"]))

With a cache, a further dim costs no computing, and an interrupted run goes on with the text that it stopped at. Knows
mteb's protocols (mteb/models/models_protocols.py), and embedders and rerankers by their public calls; loads none.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from q3e_local import Embedder, EmbedRequest, RankRequest, Reranker
from q3e_local.errors import MissingPackageError, OptionError, TextError

try:
    from mteb import get_model_meta
    from mteb.abstasks.abstask import get_abstask_prompt
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta
    from mteb.types import PromptType
    from tqdm.auto import tqdm
except ModuleNotFoundError as error:
    raise MissingPackageError("evaluating a model on mteb's tasks", "mteb") from error

Instructions = Mapping[str, str | Mapping[str, str]]
"""By task: an instruction, or one for each of "query" and "passage", as in the authors' task_prompts.json."""

# The authors evaluate with this limit: evaluation/run_mteb.sh of QwenLM/Qwen3-Embedding.
MAX_TOKENS = 8192

# Types of tasks with one instruction, whatever a table says: evaluation/qwen3_embedding_model.py.
_SIMILARITY = ("STS", "PairClassification")
_FAMILY = re.compile(r"qwen3-(embedding|reranker)[:-](0\.6b|4b|8b)")


class Line(NamedTuple):
    """What a request says about its prompt: a task's name or an instruction; neither for a bare text."""

    task: str | None = None
    instruction: str | None = None


class Encoder(AbsEncoder):
    """An embedder as mteb's encoder. `AbsEncoder` has the cosines.

    `instructions` come before those that mteb has; with the authors' own table the prompts are theirs, text by text.
    Texts above `max_tokens` are cut. The caller closes the embedder.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        dim: int | None = None,
        instructions: Instructions | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        """Raises OptionError for a dim that the model does not have."""
        self.embedder, self.instructions = embedder, instructions or {}
        self.dim = embedder.dim(EmbedRequest((), dim=dim))
        self.max_tokens = min(max_tokens, embedder.n_ctx_max)
        cut = {} if self.dim == embedder.n_embd else {"embed_dim": self.dim}
        self.mteb_model_meta = _meta(
            embedder.model,
            embedder.digest,
            cut | _settings(self.instructions, max_tokens),
            max_tokens=embedder.n_ctx_max,
            embed_dim=self.dim,
            model_type=["dense"],
            similarity_fn_name="cosine",
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        show_progress_bar: bool = True,
        **options: Any,
    ) -> np.ndarray:
        """Vectors float32 (n_texts, dim) of length 1. Raises OptionError, or the TextError of a text that fails."""
        _check(options)
        texts = _column(inputs, "text")
        line = line_of(task_metadata, self.instructions, is_document=prompt_type == PromptType.document)
        request = EmbedRequest(
            texts, "document", line.task, line.instruction, self.dim, truncate=True, max_tokens=self.max_tokens
        )
        with tqdm(total=len(texts), unit="text", disable=not show_progress_bar) as bar:
            return self.embedder.embed(request, lambda n_done, _: bar.update(n_done - bar.n)).vectors


class CrossEncoder:
    """A reranker as mteb's cross-encoder; its scores are logits, "yes" less "no".

    `settings` are named in the folder of the results, beside the model: such as what made the candidates. The other
    options are those of `Encoder`. The caller closes the reranker.
    """

    def __init__(
        self,
        reranker: Reranker,
        *,
        instructions: Instructions | None = None,
        max_tokens: int = MAX_TOKENS,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        self.reranker, self.instructions = reranker, instructions or {}
        self.max_tokens = min(max_tokens, reranker.engine.n_ctx_max)
        self.mteb_model_meta = _meta(
            reranker.model,
            reranker.engine.digest,
            dict(settings or {}) | _settings(self.instructions, max_tokens),
            max_tokens=reranker.engine.n_ctx_max,
            embed_dim=None,
            model_type=["cross-encoder"],
            similarity_fn_name=None,
        )

    def predict(
        self,
        inputs1: Iterable[Mapping[str, Any]],
        inputs2: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        show_progress_bar: bool = True,
        **options: Any,
    ) -> np.ndarray:
        """Logits float64 (n_pairs,) of queries and documents. Raises the TextError of a document, OptionError."""
        _check(options)
        questions, documents = _questions(inputs1), _column(inputs2, "text")
        usual = line_of(task_metadata, self.instructions, is_document=False)
        places: dict[tuple[str, str], list[int]] = {}
        for place, question in enumerate(questions):
            places.setdefault(question, []).append(place)
        logits = np.empty(len(questions))
        with tqdm(total=len(questions), unit="pair", disable=not show_progress_bar) as bar:
            for (query, instruction), pairs in places.items():
                line = Line(instruction=instruction) if instruction else usual
                texts = [documents[place] for place in pairs]
                request = RankRequest(query, texts, line.task, line.instruction, max_tokens=self.max_tokens)
                for place, item in zip(pairs, self.reranker.stream(request), strict=True):
                    if isinstance(item, TextError):
                        item.index = place
                        raise item
                    logits[place] = item.logit
                    bar.update()
        return logits


def line_of(task_metadata: Any, instructions: Instructions, *, is_document: bool) -> Line:
    """What a request says for a document of a task, or for any other text of it.

    As in evaluation/qwen3_embedding_model.py of QwenLM/Qwen3-Embedding. A task that `instructions` lack has the
    instruction that mteb has for it, and bare documents, as mteb's own entries of the family have.
    """
    if task_metadata.type in _SIMILARITY:
        return Line("sts")
    listed = instructions.get(task_metadata.name)
    if listed is None and task_metadata.type == "BitextMining":
        return Line("bitext")
    if isinstance(listed, Mapping):
        return Line(instruction=listed.get("passage" if is_document else "query") or None)
    if is_document and (listed is None or "Retrieval" in task_metadata.type):
        return Line()
    return Line(instruction=listed or _instruction_of_mteb(task_metadata) or None)


def _instruction_of_mteb(task_metadata: Any) -> str:
    prompt = task_metadata.prompt
    line: str = prompt.get("query", "") if isinstance(prompt, Mapping) else prompt
    return line or get_abstask_prompt(task_metadata.name)


def _meta(model: str, digest: str, settings: Mapping[str, str | int], **facts: Any) -> ModelMeta:
    """What mteb writes about a model: that of its family where it is known, with this file's own facts.

    mteb keeps results in a folder for each name, revision (the digest of the file's header) and set of settings.
    """
    found = _FAMILY.search(model.lower())
    family = get_model_meta(f"Qwen/Qwen3-{found[1].title()}-{found[2].upper()}") if found else None
    base = ModelMeta.create_empty() if family is None else family
    own = {
        "loader": None,
        "loader_kwargs": {},
        "name": f"q3e-local/{re.sub(r'[^A-Za-z0-9._-]', '-', model)}",
        "revision": digest,
        "adapted_from": None if family is None else family.name,
        "framework": ["GGUF"],
        "memory_usage_mb": None,  # that of the family is of 16-bit weights
        "output_dtypes": None,
        "use_instructions": True,
        "experiment_kwargs": dict(settings) or None,
    }
    return ModelMeta.model_validate(dict(base) | own | facts)


def _settings(instructions: Instructions, max_tokens: int) -> dict[str, str | int]:
    """The settings that are not the usual ones, which results of usual runs do not name."""
    settings: dict[str, str | int] = {}
    if instructions:
        settings["instructions"] = hashlib.sha256(json.dumps(instructions, sort_keys=True).encode()).hexdigest()[:8]
    if max_tokens != MAX_TOKENS:
        settings["max_tokens"] = max_tokens
    return settings


def _check(options: Mapping[str, Any]) -> None:
    """Raise OptionError for what would change the scores without a trace. Batches are packed by tokens here."""
    for name in options.keys() - {"batch_size"}:
        raise OptionError(f"mteb's option {name!r} is not supported; leave it out of encode_kwargs")


def _questions(inputs: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Each query with an instruction of its own, or an empty one. The column "text" has both in one."""
    return [
        pair
        for batch in inputs
        for pair in (
            zip(batch["query"], batch["instruction"], strict=True)
            if "instruction" in batch
            else ((text, "") for text in batch["text"])
        )
    ]


def _column(inputs: Iterable[Mapping[str, Any]], name: str) -> list[str]:
    return [text for batch in inputs for text in batch[name]]
