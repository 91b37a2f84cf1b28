"""What the dialects that rank share: their fields, and from fields to the service's request and back.

Knows what a question and its documents may be on the wire; no dialect's shape of an answer or of an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from q3e_local.embedding.prompts import TASKS
from q3e_local.errors import OptionError
from q3e_local.reranking.rank_model import probability
from q3e_local.server.dialects import prompt_limit
from q3e_local.server.dialects.body import hold_to_limit
from q3e_local.server.dialects.fields import Fields, Schema, shown
from q3e_local.server.dialects.notices import Notices
from q3e_local.server.errors import BadRequestError
from q3e_local.server.service import RankResult, RankServiceRequest, Service

MODEL: Schema = {
    "type": "string",
    "description": "A reranker's name as in `/v1/models`. Left out: the first reranker named at the start, else one "
    "that is loaded, else the default",
}
# A longer question would leave no room for a document, and tokenizing it would hold up other requests.
_QUERY_MAX = 20_000
QUERY: Schema = {"type": "string", "maxLength": _QUERY_MAX}
TOP_N: Schema = {
    "type": "integer",
    "minimum": 0,
    "description": "How many results, best first. Left out, 0, or more than there are documents: all",
}
DOCUMENTS: Schema = {
    "type": "array",
    "items": {
        "oneOf": [
            {"type": "string"},
            {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        ]
    },
    "minItems": 1,
}
TRUNCATE: Schema = {
    "type": "boolean",
    "default": True,
    "description": "Cut documents that are too long, and say which",
}
RAW_SCORES: Schema = {
    "type": "boolean",
    "default": False,
    "description": "Answer logits, yes less no, in place of scores from 0 to 1",
}
HOW: dict[str, Schema] = {
    "instruction": {"type": "string", "description": "What a document must do for the query, in your own words"},
    "task": {"type": "string", "enum": list(TASKS)},
    "truncate": TRUNCATE,
    "raw_scores": RAW_SCORES,
}
# `instruct` is what Qwen's own service calls the instruction. The others are vLLM's, by their new and old name.
UNLISTED: dict[str, Schema] = {
    "instruct": {"type": "string"},
    "use_activation": {"type": "boolean", "default": True},
    "activation": {"type": "boolean", "default": True},
    **prompt_limit.FIELDS,
    "priority": {},
    "user": {},
}
COHERES: dict[str, Schema] = {
    "max_chunks_per_doc": {"type": "integer", "description": "Ignored: a document is read in one piece"},
    "rank_fields": {"type": "array", "items": {"type": "string"}, "minItems": 1},
}


@dataclass(frozen=True)
class Place:
    """A document's place in the request, and its score: 0 to 1, or a logit where the request wants these."""

    index: int
    score: float


def wanted(
    fields: Fields, model: str, query: str, documents: tuple[str, ...], max_document_tokens: int | None = None
) -> RankServiceRequest:
    """The service's request. The fields are those of HOW and UNLISTED. Raises BadRequestError."""
    return RankServiceRequest(
        model,
        query,
        documents,
        task=_task(fields),
        instruction=_instruction(fields),
        truncate=fields.flag("truncate"),
        max_tokens=prompt_limit.max_tokens(fields),
        max_document_tokens=max_document_tokens,
    )


async def ranked(service: Service, wanted: RankServiceRequest) -> RankResult:
    """The service's answer.

    Raises what Service.rank raises, but BadRequestError with its field for a query or a limit that does not fit.
    """
    try:
        return await service.rank(wanted)
    except OptionError as error:
        if not error.option:
            raise
        raise BadRequestError(str(error), error.option) from None


def best_first(result: RankResult, top_n: int | None, *, raw: bool) -> list[Place]:
    """The first `top_n` documents by their scores; of equal ones the earlier first. None, 0: all."""
    order = sorted(range(len(result.logits)), key=lambda index: -result.logits[index])
    return [Place(index, score(result.logits[index], raw=raw)) for index in order[: top_n or None]]


def score(logit: float, *, raw: bool) -> float:
    """What is answered for a logit."""
    return logit if raw else probability(logit)


def query(fields: Fields) -> str:
    """The question. Raises BadRequestError: in llama-server's words where there is none, and for a blank one.

    llama-server, vLLM and Text Embeddings Inference would score a blank one, with numbers that mean nothing.
    """
    text = fields.text("query")
    if text is None:
        raise BadRequestError('"query" must be provided', "query")
    if not text.strip():
        raise BadRequestError("query is empty; ask something", "query")
    return text


def check_queries(queries: Sequence[str], field: str) -> None:
    """Raise BadRequestError for a question that is blank, or too long to be read with a document."""
    if not all(map(str.strip, queries)):
        raise BadRequestError(f"{field} has an empty query; ask something", field)
    longest = max(map(len, queries))
    if longest > _QUERY_MAX:
        raise BadRequestError(f"{field} has {longest} characters, the limit is {_QUERY_MAX}", field)


def documents(fields: Fields, field: str, max_items: int, rank_fields: list[str] | None = None) -> tuple[str, ...]:
    """The texts of the documents in a field: never none. Of objects `text`, or the named fields line by line.

    Raises BadRequestError, which names the first document that is none.
    """
    items = fields.items(field)
    if not items:
        raise BadRequestError(f'"{field}" must be a list with one text or more', field)
    hold_to_limit(len(items), max_items, field)
    return tuple(_text(item, f"{field}[{place}]", field, rank_fields) for place, item in enumerate(items))


def top_n(fields: Fields) -> int | None:
    """How many results are wanted. Raises BadRequestError for less than none."""
    return fields.integer("top_n", f"top_n must be 0 or more, got {shown(fields.raw('top_n'))}; 0 means all")


def is_raw(fields: Fields) -> bool:
    """Whether logits are wanted, in the words of any dialect. The fields are those of HOW and UNLISTED."""
    flags = [fields.flag("raw_scores"), not fields.flag("use_activation"), not fields.flag("activation")]
    return any(flags)  # of a list, so that each flag is held to its type


def rank_fields(fields: Fields) -> list[str] | None:
    """Cohere's names of the fields that are read of documents that are objects."""
    named = fields.items("rank_fields")
    if named is not None and (not named or not all(isinstance(name, str) for name in named)):
        raise BadRequestError("rank_fields must be a list of names of fields", "rank_fields")
    return named


def note_chunks(fields: Fields, notices: Notices) -> None:
    """Log once that Cohere's `max_chunks_per_doc` is ignored."""
    if fields.integer("max_chunks_per_doc") is not None:
        notices.once("max_chunks_per_doc is ignored: a document is read in one piece; max_tokens_per_doc cuts it")


def _text(item: Any, where: str, field: str, rank_fields: list[str] | None) -> str:
    if isinstance(item, str):
        return item
    if not isinstance(item, dict):
        raise BadRequestError(f"{where} must be a text or an object with a text, got {shown(item)}", field)
    texts = []
    for name in rank_fields or ("text",):
        if not isinstance(item.get(name), str):
            raise BadRequestError(f"{where}.{name} must be a text, got {shown(item.get(name))}", field)
        texts.append(item[name])
    return "\n".join(texts)


def _task(fields: Fields) -> str | None:
    """The task. Raises BadRequestError for an unknown one, and for one beside an instruction."""
    chosen = fields.choice("task", f"unknown task; choose from {', '.join(TASKS)}, or give an instruction")
    if chosen is not None and _instruction(fields) is not None:
        raise BadRequestError("give a task or an instruction, not both", "instruction")
    return chosen


def _instruction(fields: Fields) -> str | None:
    """The instruction, by either of its names. Raises BadRequestError for a blank one, and for two."""
    given = [text for text in (fields.text("instruction"), fields.text("instruct")) if text is not None]
    if len(set(given)) > 1:
        raise BadRequestError("instruction and instruct differ; send one of them", "instruct")
    if given and not given[0].strip():
        raise BadRequestError("instruction is empty; leave it out to get the default", "instruction")
    return given[0] if given else None
