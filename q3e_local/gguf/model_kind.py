"""What kind of model a file is, embedder or reranker, and where a reranker's answer is read: `AnswerRows`.

A headless reranker has the tensors of an embedding model, so a file's kind is read from what it states, or said by
the user, and never guessed from its tensors. Knows metadata and tensor names; reads no weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from q3e_local.errors import ModelFileError
from q3e_local.gguf.header import Header, Tensor

ModelKind = Literal["embedder", "reranker"]

NONE, LAST, RANK = 0, 3, 4
"""llama.cpp's LLAMA_POOLING_TYPE, as `qwen3.pooling_type` states it."""

CONTROL, USER_DEFINED = 3, 4
"""llama.cpp's types of tokens that a text's words never become."""

TURNS = ("<|im_start|>", "<|im_end|>")  # begin and end a turn of the prompt
HEAD = "cls.output.weight"
OUTPUT = "output.weight"
LABELS = "qwen3.classifier.output_labels"
RERANK_TEMPLATE = "tokenizer.chat_template.rerank"
UNTIED_SIZE = 4096  # the dimension of the 8B; in the 0.6B and the 4B the token table is the projection too
_NAMES = ("general.name", "general.basename")


@dataclass(frozen=True)
class AnswerRows:
    """The rows of a tensor whose products with the last hidden state are the logits of the two answers.

    `no` is None where the tensor has a single row: such a head was made of the difference already.
    """

    tensor: Tensor
    yes: int
    no: int | None


def stated_kind(header: Header) -> ModelKind:
    """The kind that a file states: by its pooling, head, labels, template, title or its own name."""
    metadata = header.metadata
    names = [header.path.name, *(str(metadata.get(key, "")) for key in _NAMES)]
    is_reranker = (
        metadata.get("qwen3.pooling_type") == RANK
        or HEAD in header.tensors
        or LABELS in metadata
        or RERANK_TEMPLATE in metadata
        or any("reranker" in name.lower() for name in names)
    )
    return "reranker" if is_reranker else "embedder"


def answer_rows(header: Header) -> AnswerRows:
    """Where to read a reranker's answer: its head, else its vocabulary projection, else its token table.

    Raises ModelFileError where none of them has the two answers, and for a vocabulary in which a document could close
    its turn.
    """
    _check_turns(header)
    head = header.tensors.get(HEAD)
    if head is not None:
        return _rows_of_head(header, head)
    yes, no = header.tokens.index("yes"), header.tokens.index("no")
    if yes is None or no is None:
        raise ModelFileError(
            f"{header.path} has neither a head nor the tokens 'yes' and 'no' in its vocabulary; get another file"
        )
    projection = header.tensors.get(OUTPUT)
    if projection is None and header.metadata.get("qwen3.embedding_length") == UNTIED_SIZE:
        raise ModelFileError(
            f"{header.path} has neither a head nor {OUTPUT}, which Qwen3-Reranker-8B has apart from its token table; "
            "get another file, or convert the checkpoint"
        )
    return AnswerRows(projection or header.tensors["token_embd.weight"], yes, no)


def _check_turns(header: Header) -> None:
    for text in TURNS:
        token_id = header.tokens.index(text)
        if token_id is None or header.tokens.types[token_id] not in (CONTROL, USER_DEFINED):
            raise ModelFileError(
                f"{header.path} does not mark {text} as a special token, so that a document could close its turn; "
                "get another file, or convert the checkpoint"
            )


def _rows_of_head(header: Header, head: Tensor) -> AnswerRows:
    n_rows = prod(head.shape[1:])
    if n_rows == 1:
        return AnswerRows(head, 0, None)
    labels = header.metadata.get(LABELS) or ("yes", "no")
    if n_rows != 2 or sorted(labels) != ["no", "yes"]:
        raise ModelFileError(
            f"{header.path} has a head of {n_rows} rows for {', '.join(labels)}; a Qwen3-Reranker answers yes and no"
        )
    return AnswerRows(head, labels.index("yes"), labels.index("no"))


def head_in_words(answers: AnswerRows) -> str:
    """Where a reranker's answer is read, with a warning where that is stored coarsely."""
    tensor = answers.tensor
    where = tensor.name if tensor.name == HEAD else f"two rows of {tensor.name}"
    warning = "; coarser than Q8_0, so that scores are less exact" if is_coarse(answers) else ""
    return f"{where}, {tensor.type_name}{warning}"


def is_coarse(answers: AnswerRows) -> bool:
    """Whether the rows have less than 8 bits a number."""
    return answers.tensor.type_name not in ("F32", "F16", "BF16", "Q8_0")
