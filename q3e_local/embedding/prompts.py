"""From a text and a task to the text the model sees.

Knows the model's prompt format and nothing of tokens or vectors.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from q3e_local.errors import OptionError

Kind = Literal["document", "query"]


@dataclass(frozen=True)
class Task:
    """An instruction, and whether documents get it too.

    Retrieval is asymmetric: a query gets the instruction, a document none. Where texts are compared with
    texts of the same kind, the official evaluation puts the same instruction before every text.
    """

    instruction: str
    symmetric: bool


# The texts of QwenLM/Qwen3-Embedding evaluation/task_prompts.json and qwen3_embedding_model.py, word for word
# ("retrieval code" is theirs). Classification and clustering have a text for each data set there; the two texts here
# name no particular set.
TASKS = {
    "retrieval": Task("Given a web search query, retrieve relevant passages that answer the query", False),
    "code": Task("Given a question about coding, retrieval code or passage that can solve user's question", False),
    "sts": Task("Retrieve semantically similar text", True),
    "classification": Task("Given a text, classify its topic", True),
    "clustering": Task("Identify the category of documents", True),
    "bitext": Task("Retrieve parallel sentences", True),
}


@dataclass(frozen=True)
class Prompts:
    """A model's prompt format. `query` ends in {text} and has {instruction} before it; documents get none."""

    # No space after `Query:`, as in the model's README.
    query: str = "Instruct: {instruction}\nQuery:{text}"
    instruction: str = TASKS["retrieval"].instruction

    def prefix(self, kind: Kind, task: str | None = None, instruction: str | None = None) -> str:
        """What goes before a text of this kind: empty for a bare text.

        A free `instruction` goes before documents too: whoever gives an instruction wants it used.
        Raises OptionError for an unknown kind or task, an empty instruction, or both a task and an instruction.
        """
        if kind not in ("document", "query"):
            raise OptionError(f"kind must be 'document' or 'query', got {kind!r}")
        if instruction is not None:
            if task is not None:
                raise OptionError(f"give task {task!r} or an instruction, not both")
            if not instruction.strip():
                raise OptionError("the instruction is empty; leave it out to get the default")
            return self._filled(instruction)
        if task is None:
            return self._filled(self.instruction) if kind == "query" else ""
        if task not in TASKS:
            raise OptionError(f"unknown task {task!r}; choose from {', '.join(TASKS)}, or give an instruction")
        chosen = TASKS[task]
        return self._filled(chosen.instruction) if kind == "query" or chosen.symmetric else ""

    def _filled(self, instruction: str) -> str:
        return self.query.removesuffix("{text}").replace("{instruction}", instruction)


@lru_cache(maxsize=8)  # models in use at the same time
def normalizer(added_tokens: tuple[str, ...]) -> Callable[[str], str]:
    """Unicode NFC as the reference tokenizer applies it, which llama.cpp does not.

    subtle: the reference finds added tokens such as `<think>` first and normalizes what lies between them, so a mark
    after an added token (U+0338, which composes with `>`) must not change that token.
    """
    added = "|".join(re.escape(token) for token in sorted(added_tokens, key=len, reverse=True))
    if not added:
        return lambda text: unicodedata.normalize("NFC", text)
    split = re.compile(f"({added})").split

    def normalize(text: str) -> str:
        # Odd pieces are the added tokens that split() keeps.
        return "".join(piece if i % 2 else unicodedata.normalize("NFC", piece) for i, piece in enumerate(split(text)))

    return normalize
