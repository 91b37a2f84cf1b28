"""Runtimes that take texts: this project, llama-cpp-python, fastembed and qwen3-embed.

Each imports its packages where it starts: a contender's Python may have none of the others'.
"""

from __future__ import annotations

from typing import Any

from comparison.kind import NotHereError, Started, prompted


def ours(model: str, **options: Any) -> Started:
    """This project, through `load`."""
    from dataclasses import asdict

    import q3e_local
    from q3e_local.llama.kernels import in_use
    from q3e_local.llama.settings.defaults import TUNABLE

    embedder = q3e_local.load(model, **options)

    def embed(request: dict[str, Any]) -> tuple[Any, int]:
        instruction = request.get("instruction")
        kind = "document" if instruction is None else "query"
        wanted = q3e_local.EmbedRequest(request["texts"], kind, instruction=instruction)
        result = embedder.embed(wanted)
        return result.vectors, sum(result.prompt_tokens)

    engine = embedder.engine
    settings = asdict(engine.config) | {name: getattr(engine.settings, name) for name in TUNABLE}
    return embed, settings | {"kernels": asdict(in_use.chosen())}


def llama_embed(model: str, n_tokens: int) -> Started:
    """The binding's own class with its defaults; sizes raised where they would cut a text."""
    from llama_cpp import Llama

    sizes = dict.fromkeys(("n_ctx", "n_batch"), n_tokens) if n_tokens > 512 else {}
    llama = Llama(model, embedding=True, verbose=False, **sizes)

    def embed(request: dict[str, Any]) -> tuple[Any, int]:
        vectors, n_found = llama.embed(prompted(request), normalize=True, return_count=True)
        return vectors, n_found

    return embed, {"embedding": True, **sizes}


def fastembed(name: str, folder: str, n_threads: int) -> Started:
    """fastembed, with the file of convert.py in place of its own."""
    try:
        import fastembed as package
    except ImportError as error:
        raise NotHereError(f"not installed: {error}") from None
    return _of_fastembed(package, f"qwen3-embedding-{name}-q", folder, n_threads)


def qwen3_embed(name: str, folder: str, n_threads: int) -> Started:
    """qwen3-embed, a fork of fastembed, likewise. It computes one text at a time, whatever it is asked."""
    try:
        import qwen3_embed as package
    except ImportError as error:
        raise NotHereError(f"not installed: {error}") from None
    return _of_fastembed(package, f"qwen3-embedding-{name}-onnx", folder, n_threads)


def _of_fastembed(package: Any, ending: str, folder: str, n_threads: int) -> Started:
    from importlib.metadata import version

    listed = [one["model"] for one in package.TextEmbedding.list_supported_models()]
    found = [one for one in listed if one.lower().endswith(ending)]
    if not found:
        raise NotHereError(f"has no model {ending}")
    model = package.TextEmbedding(found[0], threads=n_threads, specific_model_path=folder, local_files_only=True)
    seen: list[bool] = []

    def embed(request: dict[str, Any]) -> tuple[Any, int]:
        texts = prompted(request)
        if not seen:  # the first texts only warm it up: what follows is measured
            ids = [list(one.ids) for one in model.model.tokenizer.encode_batch(texts)]
            if ids != request["ids"]:
                raise ValueError("its tokenizer gives other ids")
            seen.append(True)
        vectors = list(model.embed(texts, batch_size=request.get("n_batch") or len(texts)))
        return vectors, sum(len(one) for one in request["ids"])

    name = package.__name__.replace("_", "-")
    return embed, {name: version(name), "onnxruntime": version("onnxruntime"), "model": found[0]}
