"""What is compared: `Column`, and the product of choices that makes columns.

Knows names of choices; nothing of how a column is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product

from q3e_local.embedding.prompts import TASKS
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import OptionError
from q3e_local.search.hits import MODES, Mode
from q3e_local.vectors import DTYPES, Dtype
from q3e_local.wording.html_table import shortened

BARE = "none"  # as an instruction: no instruction at all
_NAME_CHARACTERS = 40  # of an instruction in the name of a column


@dataclass(frozen=True)
class Column:
    """One way to compute. None is the usual: the index's model or the default, its dim, its instruction.

    `instruction` is a text, the name of a task, or "none" for questions as they stand. `rerank` is how many hits a
    reranker reads. A search by words alone has no model.
    """

    model: str | None = None
    dim: int | None = None
    dtype: Dtype = "float32"
    instruction: str | None = None
    mode: Mode = "vectors"
    rerank: int | None = None

    def __post_init__(self) -> None:
        """Raises OptionError for what no column can be."""
        for name, value, known in (("mode", self.mode, MODES), ("dtype", self.dtype, DTYPES)):
            if value not in known:
                raise OptionError(f"{name} must be one of {', '.join(known)}, got {value!r}", name)
        if self.instruction is not None and not self.instruction.strip():
            raise OptionError(f"instruction is empty; {BARE!r} means no instruction", "instruction")

    @property
    def needs_model(self) -> bool:
        """Whether vectors are compared."""
        return self.mode != "words"

    @property
    def meaning(self) -> tuple[str | None, str | None]:
        """The instruction as the task and the instruction of a request; neither for the usual, and for none."""
        if self.instruction is None or self.instruction == BARE:
            return None, None
        return (self.instruction, None) if self.instruction in TASKS else (None, self.instruction)

    def questions(self, texts: Iterable[str]) -> EmbedRequest:
        """How questions are embedded: with their instruction, or as documents are, where there is to be none."""
        if self.instruction == BARE:
            return documents(texts)
        return EmbedRequest(texts, "query", *self.meaning, truncate=True)

    def alike(self, texts: Iterable[str], usual: str) -> EmbedRequest:
        """How texts that are compared with each other are embedded: all with one instruction, of the `usual` task."""
        if self.instruction == BARE:
            return documents(texts)
        meaning = (usual, None) if self.instruction is None else self.meaning
        return EmbedRequest(texts, "query", *meaning, truncate=True)


def documents(texts: Iterable[str]) -> EmbedRequest:
    """How what is searched is embedded: bare, whatever the model's name says of instructions."""
    return EmbedRequest(texts, "document", "retrieval", truncate=True)


def columns(
    models: Sequence[str | None] = (None,),
    dims: Sequence[int | None] = (None,),
    dtypes: Sequence[Dtype] = ("float32",),
    instructions: Sequence[str | None] = (None,),
    modes: Sequence[Mode] = ("vectors",),
    reranks: Sequence[int] = (),
) -> tuple[Column, ...]:
    """Every combination of these choices, the first of each first. Raises OptionError.

    Each is there without a reranker, and with each of `reranks`. A search by words is there once, whatever else is
    compared.
    """
    found = [
        Column(*choices)
        for choices in product(models, dims, dtypes, instructions, modes, (None, *reranks))
    ]  # fmt: skip
    return tuple(dict.fromkeys(_plain(column) for column in found))


def _plain(column: Column) -> Column:
    """The column without what its mode has no use for."""
    if column.needs_model:
        return column
    keeps_instruction = column.rerank is not None  # a reranker reads it too
    return Column(
        mode=column.mode, rerank=column.rerank, instruction=column.instruction if keeps_instruction else None
    )


def names(columns: Sequence[Column]) -> tuple[str, ...]:
    """What to call each column: by the choices in which the columns differ; where they do not, by model and mode."""
    varying = []
    for name in (field.name for field in fields(Column)):
        # A search by words has no model, dim or dtype: it says nothing of whether these differ.
        having = [column for column in columns if column.needs_model or name not in ("model", "dim", "dtype")]
        if len({getattr(column, name) for column in having}) > 1:
            varying.append(name)
    return tuple(", ".join(_words(column, varying or ["model", "mode"])) for column in columns)


def told_apart(asked: Sequence[Column], known: Sequence[Column]) -> tuple[Column, ...]:
    """The known columns, whose models have their own names; models that share one get those that were asked for."""
    names: dict[str | None, set[str | None]] = {}
    for column, of_model in zip(asked, known, strict=True):
        names.setdefault(of_model.model, set()).add(column.model)
    return tuple(
        replace(of_model, model=column.model or of_model.model) if len(names[of_model.model]) > 1 else of_model
        for column, of_model in zip(asked, known, strict=True)
    )


def _words(column: Column, varying: Sequence[str]) -> list[str]:
    """The choices of a column in words. A column without a model has no more to say of vectors."""
    usual = "usual instruction" if column.needs_model else None
    instruction = "no instruction" if column.instruction == BARE else str(column.instruction)
    words = {
        "model": column.model,
        "dim": None if column.dim is None else f"dim {column.dim}",
        "dtype": column.dtype if column.needs_model else None,
        "instruction": usual if column.instruction is None else shortened(instruction, _NAME_CHARACTERS),
        "mode": column.mode,
        "rerank": None if column.rerank is None else f"rerank {column.rerank}",
    }
    return [word for name in varying if (word := words[name]) is not None] or ["no reranker"]
