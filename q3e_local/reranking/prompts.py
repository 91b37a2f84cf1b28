"""What a reranker reads: the prompt of Qwen3-Reranker around a question and a document.

The texts are those of the model's authors (QwenLM/Qwen3-Embedding, examples/qwen3_reranker_transformers.py),
character for character. Knows no tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from q3e_local.embedding.prompts import TASKS
from q3e_local.errors import OptionError

PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class RerankPrompts:
    """A reranker's prompt format: `body` has the places {instruction}, {query} and, at its end, {document}."""

    body: str = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    instruction: str = TASKS["retrieval"].instruction

    def before_document(self, query: str, task: str | None = None, instruction: str | None = None) -> str:
        """The body of the prompt up to the document.

        Raises OptionError for an unknown task, an empty instruction, or both a task and an instruction.
        """
        if task is not None and instruction is not None:
            raise OptionError(f"give task {task!r} or an instruction, not both")
        if instruction is not None and not instruction.strip():
            raise OptionError("the instruction is empty; leave it out to get the default")
        if task is not None and task not in TASKS:
            raise OptionError(f"unknown task {task!r}; choose from {', '.join(TASKS)}, or give an instruction")
        said = TASKS[task].instruction if task is not None else instruction or self.instruction
        before, _, rest = self.body.removesuffix("{document}").partition("{instruction}")
        between, _, behind = rest.partition("{query}")  # not replace(): an instruction may have the text `{query}`
        return f"{before}{said}{between}{query}{behind}"


@lru_cache(maxsize=8)  # models in use at the same time
def parter(added_tokens: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Parts a text inside each special token that it spells, so that no part has the token: text stays text.

    Without it a document could close its own turn and speak as the assistant.
    """
    spelled = "|".join(re.escape(token) for token in sorted(added_tokens, key=len, reverse=True))
    if not spelled:
        return lambda text: [text]
    # A lookahead finds tokens that overlap too.
    find = re.compile(f"(?=(?:{spelled}))").finditer

    def parts(text: str) -> list[str]:
        places = [0, *(match.start() + 1 for match in find(text)), len(text)]
        return [text[start:end] for start, end in pairwise(places) if start < end]

    return parts
