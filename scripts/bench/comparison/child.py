"""One contender in a process of its own: lines of JSON in, lines of JSON out.

`{"kind": ..., "options": {...}}` once, then `{"texts": [...], "ids": [...]}` any number of times. Vectors go to a
file, since handing them over is not what is measured. Runs under the contender's Python, which may have none of this
project's packages but NumPy: everything else is imported where it is used.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Embed = Callable[[dict[str, Any]], tuple[Any, int]]  # a request to vectors and tokens


class NotHereError(Exception):
    """This contender cannot run here; the text says why."""


def library(model: str, **options: Any) -> tuple[Embed, dict[str, Any]]:
    """This project, through `load`."""
    from dataclasses import asdict

    import q3e_local
    from q3e_local.tuning import TUNABLE

    embedder = q3e_local.load(model, **options)

    def embed(request: dict[str, Any]) -> tuple[Any, int]:
        instruction = request.get("instruction")
        kind = "document" if instruction is None else "query"
        wanted = q3e_local.EmbedRequest(request["texts"], kind, instruction=instruction)
        result = embedder.embed(wanted)
        return result.vectors, sum(result.prompt_tokens)

    engine = embedder.engine
    return embed, asdict(engine.config) | {name: getattr(engine.settings, name) for name in TUNABLE}


def llama_embed(model: str, n_tokens: int) -> tuple[Embed, dict[str, Any]]:
    """The binding's own class with its defaults; sizes raised where they would cut a text."""
    from llama_cpp import Llama

    sizes = dict.fromkeys(("n_ctx", "n_batch"), n_tokens) if n_tokens > 512 else {}
    llama = Llama(model, embedding=True, verbose=False, **sizes)

    def embed(request: dict[str, Any]) -> tuple[Any, int]:
        vectors, n_found = llama.embed(prompted(request), normalize=True, return_count=True)
        return vectors, n_found

    return embed, {"embedding": True, **sizes}


def torch_bf16(checkpoint: str, n_threads: int) -> tuple[Embed, dict[str, Any]]:
    """The model alone through transformers, on ids: tokenizing is not counted against it."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise NotHereError(f"not installed: {error}") from None
    torch.set_num_threads(n_threads)
    model = transformers.AutoModel.from_pretrained(checkpoint, dtype=torch.bfloat16).eval()

    @torch.inference_mode()
    def embed(request: dict[str, Any]) -> tuple[Any, int]:
        ids = request["ids"]
        length = len(ids[0])
        assert all(len(one) == length for one in ids), "texts of one length: nothing is padded"
        # 32 as in sentence-transformers, fewer of long ones, whose activations would not stay in any cache.
        n_batch = max(1, min(32, 4096 // length))
        rows = []
        for start in range(0, len(ids), n_batch):
            hidden = model(torch.tensor(ids[start : start + n_batch]), use_cache=False).last_hidden_state
            rows.append(torch.nn.functional.normalize(hidden[:, -1].float(), dim=-1).numpy())
        return np.concatenate(rows), len(ids) * length

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return embed, {**versions, "dtype": "bfloat16", "attention": model.config._attn_implementation}


def fastembed(name: str) -> tuple[Embed, dict[str, Any]]:
    """fastembed with the ONNX file of its own, if it has this model and the file is on this machine."""
    try:
        from fastembed import TextEmbedding
    except ImportError:
        raise NotHereError("not installed") from None
    listed = [one["model"] for one in TextEmbedding.list_supported_models()]
    found = [one for one in listed if one.lower().endswith(f"qwen3-embedding-{name}")]
    if not found:
        raise NotHereError(f"has no Qwen3-Embedding-{name}")
    try:
        model = TextEmbedding(found[0], local_files_only=True)
    except Exception as error:  # whatever it raises for a file that is not here
        raise NotHereError(f"its file of {found[0]} is not on this machine: {str(error).splitlines()[0]}") from None

    def embed(request: dict[str, Any]) -> tuple[Any, int]:
        vectors = list(model.embed(prompted(request)))
        return vectors, sum(len(one) for one in request["ids"])

    return embed, {"model": found[0]}


def peak(n_threads: int) -> tuple[Embed, dict[str, Any]]:
    """No contender: matrix products, the bound of what any can reach. Answers operations a second by type."""
    products: dict[str, Callable[[], Any]] = {}
    shape = (512, 4096, 4096)  # a pack of tokens against a weight matrix
    n_rows, n_inner, n_columns = shape
    try:
        import torch
    except ImportError:
        rng = np.random.default_rng(0)
        a, b = (rng.standard_normal(size, np.float32) for size in ((n_rows, n_inner), (n_inner, n_columns)))
        products["f32"] = lambda: a @ b
        versions = {"numpy": np.__version__}
    else:
        torch.set_num_threads(n_threads)
        for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            x, w = torch.randn(n_rows, n_inner).to(dtype), torch.randn(n_columns, n_inner).to(dtype)
            products[name] = lambda x=x, w=w: torch.nn.functional.linear(x, w)
        x8 = torch.randint(-127, 127, (n_rows, n_inner), dtype=torch.int8)
        w8 = torch.randint(-127, 127, (n_inner, n_columns), dtype=torch.int8)
        products["int8"] = lambda: torch._int_mm(x8, w8)
        products["int8 (packed weights)"] = packed_int8(torch, n_rows, n_inner, n_columns)
        versions = {"torch": torch.__version__}

    def measure(request: dict[str, Any]) -> tuple[Any, int]:
        found = {}
        for name, product in products.items():
            try:
                product()
                best = min(timed(product) for _ in range(request.get("times", 15)))
            except Exception:  # a build without this product
                continue
            found[name] = 2 * n_rows * n_inner * n_columns / best
        return found, 0

    return measure, {**versions, "shape": shape}


def packed_int8(torch: Any, n_rows: int, n_inner: int, n_columns: int) -> Callable[[], Any]:
    """oneDNN's u8 times s8 with the weights laid out beforehand, as a runtime would keep them."""
    torch.backends.quantized.engine = "onednn"
    linear = torch.ao.nn.quantized.Linear(n_inner, n_columns)
    weight = torch.quantize_per_tensor(torch.randn(n_columns, n_inner), 0.02, 0, torch.qint8)
    linear.set_weight_bias(weight, None)
    x = torch.quantize_per_tensor(torch.rand(n_rows, n_inner), 0.02, 0, torch.quint8)
    return lambda: linear(x)


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def prompted(request: dict[str, Any]) -> list[str]:
    """Texts as those see them who know nothing of instructions."""
    instruction = request.get("instruction")
    prefix = "" if instruction is None else f"Instruct: {instruction}\nQuery:"
    return [prefix + text for text in request["texts"]]


KINDS: dict[str, Callable[..., tuple[Any, dict[str, Any]]]] = {
    "library": library,
    "llama_embed": llama_embed,
    "torch_bf16": torch_bf16,
    "fastembed": fastembed,
    "peak": peak,
}


def main() -> None:
    sys.path.pop(0)  # this folder, whose modules are none of the contender's
    # What a library prints must not come between the lines of the answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    embed: Embed | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "kind" in request:
                embed, settings = KINDS[request["kind"]](**request["options"])
                answer: dict[str, Any] = {"settings": settings}
            else:
                assert embed is not None
                began = time.perf_counter()
                vectors, n_tokens = embed(request)
                answer = {"seconds": time.perf_counter() - began, "tokens": n_tokens}
                if "vectors" in request:
                    np.save(Path(request["vectors"]), np.asarray(vectors, np.float32))
                else:
                    answer["found"] = vectors
        except NotHereError as error:
            answer = {"not_here": str(error)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
