"""Turn a checkpoint into what another runtime reads: OpenVINO's or ONNX Runtime's files, with weights of 8 or 4 bits.

Runs under the contenders' Python. The ways are those of the runtimes' own documentation, without calibration texts.

    python convert.py FORM SOURCE FOLDER

FORM is `openvino` or `onnx`, in float and made of a checkpoint; or `openvino-int8`, `openvino-int4`, `onnx-int8` or
`onnx-int4`, made of a folder of those.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")


def openvino(source: Path, folder: Path) -> None:
    """Through optimum-intel, whose export knows how to trace this family."""
    from optimum.intel import OVModelForFeatureExtraction

    model = OVModelForFeatureExtraction.from_pretrained(source, export=True, compile=False, load_in_8bit=False)
    model.save_pretrained(folder)


def openvino_int8(source: Path, folder: Path) -> None:
    """nncf's default: a scale and a zero point for each row."""
    import nncf

    _compressed(source, folder, mode=nncf.CompressWeightsMode.INT8_ASYM)


def openvino_int4(source: Path, folder: Path) -> None:
    """optimum-cli's default for int4: groups of 128, every matrix but the token table."""
    import nncf

    _compressed(source, folder, mode=nncf.CompressWeightsMode.INT4_ASYM, group_size=128, ratio=1.0)


def _compressed(source: Path, folder: Path, **how: Any) -> None:
    import nncf
    import openvino as ov

    model = ov.Core().read_model(source / "openvino_model.xml")
    ov.save_model(nncf.compress_weights(model, **how), folder / "openvino_model.xml", compress_to_fp16=False)


def onnx(source: Path, folder: Path) -> None:
    """Through torch.onnx, in float32: ONNX Runtime has no products in bf16 on a CPU."""
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(source, dtype=torch.float32).eval()

    class LastHidden(torch.nn.Module):
        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state

    wrapped = LastHidden()
    wrapped.model = model
    ids = torch.zeros((2, 48), dtype=torch.long)
    names = ("input_ids", "attention_mask")
    torch.onnx.export(
        wrapped, (ids, torch.ones_like(ids)), folder / "model.onnx", input_names=list(names),
        output_names=["last_hidden_state"], dynamo=True, external_data=True,
        dynamic_shapes={name: {0: "batch", 1: "tokens"} for name in names},
    )  # fmt: skip


def onnx_int8(source: Path, folder: Path) -> None:
    """Dynamic quantization, as most published files have it: activations have one scale for a whole tensor."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantized = _quantized(folder)
    quantize_dynamic(
        source / "model.onnx", quantized, weight_type=QuantType.QInt8, per_channel=True, use_external_data_format=True
    )


def onnx_int4(source: Path, folder: Path) -> None:
    """Blocks of 32 weights, multiplied with activations of 8 bits: ONNX Runtime's own kernels for language models."""
    import onnx as package
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = package.load(source / "model.onnx")
    quantizer = MatMulNBitsQuantizer(model, block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(_quantized(folder)), use_external_data_format=True)


def _quantized(folder: Path) -> Path:
    """Where fastembed and qwen3-embed look for it."""
    (folder / "onnx").mkdir()
    return folder / "onnx" / "model_quantized.onnx"


FORMS: dict[str, Callable[[Path, Path], None]] = {
    "openvino": openvino,
    "openvino-int8": openvino_int8,
    "openvino-int4": openvino_int4,
    "onnx": onnx,
    "onnx-int8": onnx_int8,
    "onnx-int4": onnx_int4,
}


def main(form: str, source: Path, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    FORMS[form](source, partial)
    for name in SMALL_FILES:
        if (source / name).exists() and not (partial / name).exists():
            shutil.copy(source / name, partial / name)
    partial.rename(folder)  # a folder of this name is whole


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose modules are none of the packages'
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
