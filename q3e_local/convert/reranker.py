"""What is special about a reranker's checkpoint: how it is recognized, and which rows of it are the head.

As llama.cpp's converter does it (conversion/qwen.py): a reranker answers with the tokens `yes` and `no`, and its head
is their two rows of the vocabulary projection. Knows names and config.json; reads no weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from q3e_local.convert.shards import REMEDY, PickedRows, StoredTensor
from q3e_local.convert.vocabulary import Vocabulary
from q3e_local.errors import ConversionError
from q3e_local.gguf.model_kind import HEAD

ARCHITECTURE = "Qwen3ForSequenceClassification"
"""A reranker whose head was made one row, the difference of the two: `score.weight`."""

YES_NO = ("yes", "no")
SINGLE = ("LABEL_0",)  # what transformers calls the only class

TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
"""The prompt as llama.cpp's server fills it in. Nothing here reads it."""

_OUTPUT, _TABLE, _SCORE = "lm_head.weight", "embed_tokens.weight", "score.weight"
HEADS = (_OUTPUT, _SCORE)  # of which at most some rows are in a GGUF


def is_reranker(folder: Path, title: str, config: dict[str, Any], architecture: object) -> bool:
    """Whether a checkpoint says that it is a reranker: by its title, its architecture or its model card."""
    hints = f"{title} {config.get('_name_or_path')} {architecture}".lower()
    if "qwen3-reranker" in hints or "sequenceclassification" in hints:
        return True
    card = folder / "README.md"
    return card.is_file() and "# qwen3-reranker" in card.read_text(encoding="utf-8", errors="replace").lower()


def with_head(
    folder: Path,
    config: dict[str, Any],
    stored: dict[str, StoredTensor],
    tensors: dict[str, StoredTensor | PickedRows],
    vocabulary: Vocabulary,
) -> tuple[dict[str, StoredTensor | PickedRows], tuple[str, ...]]:
    """The tensors with the head, where llama.cpp's converter has it, and the labels of its rows.

    Raises ConversionError where the checkpoint has none.
    """
    source, labels = _source(folder, config, {name.removeprefix("model."): each for name, each in stored.items()})
    n_embd = tensors["output_norm.weight"].shape[0]
    if labels == SINGLE:
        if source.shape != (1, n_embd):
            raise ConversionError(
                f"{source.path} has {source.name} of shape {list(source.shape)}, not {[1, n_embd]}: a Qwen3-Reranker "
                "has one class, or two tokens for an answer"
            )
        head = PickedRows(source, (0,))
    else:
        if source.shape != tensors["token_embd.weight"].shape:
            raise ConversionError(
                f"{source.path} has {source.name} of shape {list(source.shape)}, unlike the token table; {REMEDY}"
            )
        missing = [word for word in YES_NO if word not in vocabulary.tokens]
        if missing:
            raise ConversionError(f"{folder} has no token {missing[0]!r}, with which a Qwen3-Reranker answers")
        head = PickedRows(source, tuple(vocabulary.tokens.index(word) for word in YES_NO))
    return _placed(head, stored, tensors), labels


def _source(
    folder: Path, config: dict[str, Any], stored: dict[str, StoredTensor]
) -> tuple[StoredTensor, tuple[str, ...]]:
    if _SCORE in stored:
        return stored[_SCORE], SINGLE
    is_tied = config.get("tie_word_embeddings", _OUTPUT not in stored)
    if is_tied:
        return stored[_TABLE], YES_NO
    if _OUTPUT not in stored:
        raise ConversionError(
            f"{folder} has no {_OUTPUT}, and config.json does not say that it is tied to the token table; {REMEDY}"
        )
    return stored[_OUTPUT], YES_NO


def _placed(
    head: PickedRows, stored: dict[str, StoredTensor], tensors: dict[str, StoredTensor | PickedRows]
) -> dict[str, StoredTensor | PickedRows]:
    """The head before its source, in the order of the checkpoint."""
    names = {tensor: name for name, tensor in tensors.items()}
    placed: dict[str, StoredTensor | PickedRows] = {}
    for tensor in stored.values():
        if tensor is head.tensor:
            placed[HEAD] = head
        if tensor in names:
            placed[names[tensor]] = tensor
    return placed
