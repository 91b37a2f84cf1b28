"""`q3e-local show`: what a model's file says, what was checked, and the memory it needs.

Of a model that is not here, what its card says.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from q3e_local.cli import candidates
from q3e_local.cli.terminal import say
from q3e_local.cli.writing.show import print_facts, print_json
from q3e_local.embedding.preparing import Defaults
from q3e_local.errors import ModelNotHereError
from q3e_local.models import installed
from q3e_local.models.installed import Located
from q3e_local.wording.counts import size

if TYPE_CHECKING:
    from q3e_local.gguf.model_file import ModelInfo
    from q3e_local.models.card import ModelCard, ModelFile
    from q3e_local.models.names import Named

_CONTEXTS = (512, 2_048, 8_192, 32_768)


@click.command()
@click.argument("name", shell_complete=candidates.model_or_file)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(name: str, as_json: bool) -> None:
    """Show what a model's file says, what was checked, and the memory it needs.

    Of a known model that is not on this machine, what is published of it, and how to get it.
    """
    from q3e_local.models import names

    try:
        _show_file(names.resolve(name), as_json)
    except ModelNotHereError as error:
        all_names = names.Names()
        _show_card(*all_names.to_pull(name), all_names.meaning(name)[1], as_json)
        say(str(error))


def _show_file(named: Named, as_json: bool) -> None:
    from q3e_local.embedding.engine import EngineConfig
    from q3e_local.llama import forecast
    from q3e_local.llama.settings import kept
    from q3e_local.llama.settings.memory import as_asked, needed_bytes

    located, config = named.located, EngineConfig()
    info = located.inspect()
    placement = forecast.expected(info, config)
    chosen = kept.planned(info.digest, config, placement)
    digest = installed.recorded_sha256(located)
    checked = f"header, SHA-256 {digest}" if digest else "header"
    batches = as_asked(config, chosen.n_batch)
    memory = {n_ctx: needed_bytes(info, batches, n_ctx) for n_ctx in _CONTEXTS if n_ctx <= info.n_ctx_train}
    card = located.card
    facts: dict[str, Any] = {
        "name": located.name,
        "kind": info.kind,
        "title": info.name,
        "path": str(located.path),
        "size_bytes": info.size_bytes,
        "quantization": info.quantization,
        "parameters": card.sizes.parameters if card else None,
        "license": card.license if card else None,
        "n_embd": info.n_embd,
        "n_layer": info.n_layer,
        "n_vocab": info.n_vocab,
        "n_ctx": info.n_ctx_train,
        **_own_facts(info, located),
        "under_this_name": asdict(named.defaults),
        "digest": info.digest,
        "checked": checked,
        "memory_bytes": memory,
        "placement": placement.fields(),
    }
    if as_json:
        print_json(facts)
        return
    lines = {
        "name": located.name,
        "kind": info.kind,
        "under this name": _meaning(named.defaults),
        "title": info.name,
        "path": str(located.path),
        "size": size(info.size_bytes),
        "quantization": info.quantization,
        "parameters": f"{card.sizes.parameters:,}" if card else None,
        "license": card.license if card else None,
        **_shape(info.kind, info.n_embd, info.n_layer, info.n_vocab, info.n_ctx_train),
        **_own_lines(info, located),
        "fingerprint": f"{info.digest}, of the header and the beginning of each tensor",
        "checked": f"{checked} of the whole file" if digest else checked,
    }
    lines |= _memory(memory)
    if placement.devices or placement.is_short:
        lines["computes now"] = placement.explained
    print_facts(lines)


def _show_card(card: ModelCard, file: ModelFile, defaults: Defaults, as_json: bool) -> None:
    """What is known of a model whose file is not here."""
    from q3e_local.models import fitting

    sizes, origin, short = card.sizes, card.origin(file), fitting.shortage(card, file)
    memory = {n: fitting.needed_bytes(card, file.size_bytes, n) for n in _CONTEXTS if n <= sizes.n_ctx}
    prompts = (
        {"query_prompt": card.prompts.query, "instruction": card.prompts.instruction}
        if card.kind == "embedder"
        else {"prompt": card.rerank_prompts.body, "instruction": card.rerank_prompts.instruction}
    )
    name = card.tag(file.quantization)
    if as_json:
        download = None if file.is_converted else (origin or file).size_bytes
        facts: dict[str, Any] = {"name": name, "kind": card.kind, "description": card.description, "path": None}
        facts |= {"size_bytes": file.size_bytes, "download_bytes": download, "quantization": file.quantization}
        facts |= {"license": card.license, **asdict(sizes), **prompts, "under_this_name": asdict(defaults)}
        print_json({**facts, "memory_bytes": memory, "fits": short is None})
        return
    lines: dict[str, str | None] = {
        "name": name,
        "kind": card.kind,
        "under this name": _meaning(defaults),
        "what it is": card.description,
        "on this machine": "no",
        "size": size(file.size_bytes),
        "made here from": None if origin is None else f"{origin.file}, {size(origin.size_bytes)}",
        "quantization": file.quantization,
        "parameters": f"{sizes.parameters:,}",
        "license": card.license,
        **_shape(card.kind, sizes.n_embd, sizes.n_layer, sizes.n_vocab, sizes.n_ctx),
        **{label.replace("_", " "): text.replace("\n", "\\n") for label, text in prompts.items()},
        **_memory(memory),
    }
    if short is not None:
        lines["too large"] = str(short) if short.instead is None else f"{short}; one that fits: {short.instead.name}"
    print_facts(lines)


def _shape(kind: str, n_embd: int, n_layer: int, n_vocab: int, n_ctx: int) -> dict[str, str | None]:
    from q3e_local.embedding.request import DIM_MIN

    return {
        "dimension": f"{DIM_MIN} to {n_embd:,}" if kind == "embedder" else None,
        "layers": str(n_layer),
        "vocabulary": f"{n_vocab:,} tokens",
        "context": f"{n_ctx:,} tokens",
    }


def _memory(by_context: dict[int, int]) -> dict[str, str]:
    return {f"memory for {n_ctx:,} tokens": f"about {size(n_bytes)}" for n_ctx, n_bytes in by_context.items()}


def _meaning(defaults: Defaults) -> str | None:
    """What a name such as `qwen3-embedding:4b-query` does to texts; None for a model's own name."""
    if defaults == Defaults():
        return None
    values = {"instruction": defaults.instruction, "task": defaults.task, "dim": defaults.dim}
    changed = [f"{name} {value}" for name, value in values.items() if value is not None]
    return ", ".join(["queries" if defaults.kind == "query" else "documents", *changed])


def _own_facts(info: ModelInfo, located: Located) -> dict[str, Any]:
    """What only a model of this kind has, for programs."""
    from q3e_local.gguf.model_kind import is_coarse

    if info.answers is None:
        return {"pooling": "last", "end_token": info.eos_id, "query_prompt": located.prompts.query}
    tensor = info.answers.tensor
    head = {"tensor": tensor.name, "type": tensor.type_name, "coarse": is_coarse(info.answers)}
    return {"head": head, "prompt": located.rerank_prompts.body}


def _own_lines(info: ModelInfo, located: Located) -> dict[str, str]:
    """The same for people."""
    from q3e_local.gguf.model_file import END_TEXT
    from q3e_local.gguf.model_kind import head_in_words

    if info.answers is None:
        return {
            "pooling": f"last token, {info.eos_id} {END_TEXT}",
            "query prompt": located.prompts.query.replace("\n", "\\n"),
            "instruction": located.prompts.instruction,
        }
    return {
        "head": head_in_words(info.answers),
        "prompt": located.rerank_prompts.body.replace("\n", "\\n"),
        "instruction": located.rerank_prompts.instruction,
    }
