"""Runtimes that compute the model as a graph: PyTorch, OpenVINO (bare and through optimum-intel), ONNX Runtime.

They get ids, and folders that convert.py made. Each imports its packages where it starts: a Python may lack them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from comparison.kind import NotHereError, Started, on_ids


def torch_model(folder: str, n_threads: int, dtype: str) -> Started:
    """PyTorch, through transformers."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise NotHereError(f"not installed: {error}") from None
    torch.set_num_threads(n_threads)
    model = transformers.AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    @torch.inference_mode()
    def last_hidden(ids: Any) -> Any:
        return model(torch.from_numpy(ids), use_cache=False).last_hidden_state[:, -1].float().numpy()

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return on_ids(last_hidden), {**versions, "dtype": dtype, "attention": model.config._attn_implementation}


def openvino(folder: str, n_threads: int, hint: str) -> Started:
    """OpenVINO, called directly."""
    try:
        import openvino as ov
    except ImportError as error:
        raise NotHereError(f"not installed: {error}") from None
    config = _openvino_config(n_threads, hint)
    compiled = ov.Core().compile_model(str(Path(folder) / "openvino_model.xml"), "CPU", config)
    _hint_was_taken(compiled, hint)

    def last_hidden(ids: Any) -> Any:
        answer = compiled({"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return answer["last_hidden_state"][:, -1]

    return on_ids(last_hidden), {"openvino": ov.__version__, **config}


def optimum(folder: str, n_threads: int, hint: str) -> Started:
    """OpenVINO, through optimum-intel."""
    try:
        import openvino as ov
        import torch
        from optimum.intel import OVModelForFeatureExtraction
    except ImportError as error:
        raise NotHereError(f"not installed: {error}") from None
    from importlib.metadata import version

    config = _openvino_config(n_threads, hint)
    model = OVModelForFeatureExtraction.from_pretrained(folder, device="CPU", ov_config=dict(config), compile=True)
    _hint_was_taken(model.request, hint)

    def last_hidden(ids: Any) -> Any:
        given = torch.from_numpy(ids)
        return model(input_ids=given, attention_mask=torch.ones_like(given)).last_hidden_state[:, -1].numpy()

    versions = {"optimum-intel": version("optimum-intel"), "openvino": ov.__version__}
    return on_ids(last_hidden), {**versions, **config}


def onnx_runtime(folder: str, n_threads: int) -> Started:
    """ONNX Runtime, called directly."""
    try:
        import onnxruntime
    except ImportError as error:
        raise NotHereError(f"not installed: {error}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    path = str(Path(folder) / "onnx" / "model_quantized.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def last_hidden(ids: Any) -> Any:
        (hidden,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return hidden[:, -1]

    return on_ids(last_hidden), {"onnxruntime": onnxruntime.__version__, "n_threads": n_threads}


def _openvino_config(n_threads: int, hint: str) -> dict[str, Any]:
    return {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": n_threads, "PERFORMANCE_HINT": "LATENCY"}


def _hint_was_taken(compiled: Any, hint: str) -> None:
    """OpenVINO computes in float32 where the CPU lacks bf16, and says so only when asked."""
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if taken != hint:
        raise NotHereError(f"OpenVINO computes in {taken} on this CPU whatever the hint")
