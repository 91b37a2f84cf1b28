"""Who is compared: each contender's name, what tables and plots call it, and whose weights it has.

Knows nothing of how they are started.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Peer:
    """A runtime under another Python, on files that convert.py made of the model's weights in bf16."""

    kind: str  # as child.py calls it
    form: str  # as convert.py calls its files
    options: dict[str, Any] = field(default_factory=dict)
    batches: bool = True  # it computes as many texts at once as it is told to


PEERS = {
    "torch-bf16": Peer("torch", "checkpoint", {"dtype": "bfloat16"}),
    "torch-f32": Peer("torch", "checkpoint", {"dtype": "float32"}),
    **{
        f"{kind}-{weights}-{hint}": Peer(kind, f"openvino-{weights}", {"hint": hint})
        for kind in ("openvino", "optimum")
        for weights in ("int8", "int4")
        for hint in ("f32", "bf16")
    },
    "onnxruntime-int8": Peer("onnxruntime", "onnx-int8"),
    "onnxruntime-int4": Peer("onnxruntime", "onnx-int4"),
    "fastembed": Peer("fastembed", "onnx-int8"),
    "qwen3-embed": Peer("qwen3_embed", "onnx-int8", batches=False),
}
TAKES_NAME = ("fastembed", "qwen3-embed")  # they know a few models by name

# Whose speed the others' is held against.
BATCH_BASE, CLIENTS_BASE = "library", "http"
BATCH = ("library", "library-ggml", "cli", "http", "llama-embed", "llama-server", "llama-server-best", *PEERS)
CLIENTS = ("http", "http-ggml", "llama-server", "llama-server-best")

# Without our kernels llama.cpp computes everything.
WITHOUT_KERNELS = {"library-ggml": "library", "http-ggml": "http"}

LABELS = {
    "library": "q3e-local, library",
    "library-ggml": "q3e-local, library, kernels off",
    "cli": "q3e-local, command",
    "http": "q3e-local, server",
    "http-ggml": "q3e-local, server, kernels off",
    "llama-embed": "`Llama.embed`",
    "llama-server": "llama-server, defaults",
    "llama-server-best": "llama-server, best flags",
    "torch-bf16": "PyTorch bf16",
    "torch-f32": "PyTorch f32",
    **{
        f"{kind}-{weights}-{hint}": f"{label} {weights}, {hint}"
        for kind, label in (("openvino", "OpenVINO"), ("optimum", "optimum-intel"))
        for weights in ("int8", "int4")
        for hint in ("f32", "bf16")
    },
    "onnxruntime-int8": "ONNX Runtime int8",
    "onnxruntime-int4": "ONNX Runtime int4",
    "fastembed": "fastembed",
    "qwen3-embed": "qwen3-embed",
}
COLORS = {
    "library": "#1b6ca8", "library-ggml": "#3f88b5", "cli": "#5fa8d3", "http": "#9ccbe6", "http-ggml": "#c3dff0",
    "llama-embed": "#c0c0c0", "llama-server": "#f2a65a", "llama-server-best": "#d1495b",
    "torch-bf16": "#6a4c93", "torch-f32": "#9b7fc0",
    "openvino-int8-f32": "#0b6e4f", "openvino-int8-bf16": "#08a045", "openvino-int4-f32": "#6bbf59",
    "openvino-int4-bf16": "#a4d9a0", "optimum-int8-f32": "#7a6c5d", "optimum-int8-bf16": "#9c8b79",
    "optimum-int4-f32": "#bdaa94", "optimum-int4-bf16": "#ddcbb5", "onnxruntime-int8": "#8f2d56",
    "onnxruntime-int4": "#c76b98", "fastembed": "#4f772d", "qwen3-embed": "#90a955",
}  # fmt: skip
