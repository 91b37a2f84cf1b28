"""vLLM's two fields that cut prompts, which its clients send to OpenAI's route and to those that rank.

Knows what the fields mean in vllm/entrypoints/pooling/base/protocol.py of vLLM: of a prompt that is too long, a model
that pools keeps the beginning, as this server does. Knows no model's limit.
"""

from __future__ import annotations

from q3e_local.server.dialects.fields import Fields, Schema
from q3e_local.server.errors import BadRequestError

FIELDS: dict[str, Schema] = {
    "truncate_prompt_tokens": {
        "type": "integer",
        "minimum": -1,
        "description": "vLLM's: keep the first so many tokens of each prompt, the model's own closing tokens among "
        "them; -1, and more than the model takes, stand for the model's limit",
    },
    "truncation_side": {"type": "string", "enum": ["right"], "description": "vLLM's: the end is cut"},
}


def max_tokens(fields: Fields) -> int | None:
    """The most tokens of a prompt; None is the model's own limit. The fields are those of FIELDS.

    Raises BadRequestError for a number below -1, for 0, and for the side "left".
    """
    limit = fields.integer("truncate_prompt_tokens")
    if limit == 0:
        raise BadRequestError(
            "truncate_prompt_tokens must be 1 or more, or -1 for the model's limit, got 0", "truncate_prompt_tokens"
        )
    fields.choice(
        "truncation_side",
        "truncation_side must be 'right': a text is cut at its end, because its instruction stands at its beginning",
    )
    return None if limit == -1 else limit
