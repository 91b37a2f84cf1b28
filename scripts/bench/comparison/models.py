"""A model file, and what the other runtimes read in its place: the same weights in their own formats, made once.

Knows files, and the memory that each contender may take; the formats are convert.py's.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from comparison.contenders import crashed, environment
from comparison.kind import NotHereError
from comparison.roster import PEERS
from q3e_local import machine
from q3e_local.gguf.header import read_header
from q3e_local.gguf.model_file import ModelInfo, inspect

HERE = Path(__file__).parent
SPARE_BYTES = 10**9
MAKING_S = 3600
WEIGHTS_A_BYTE = 1.61  # of Q4_K_M: 4.5 to 6.5 bits a weight

# What each form is made of, and bytes a weight that its making may take.
SOURCES = {
    "openvino": ("checkpoint", 6), "openvino-int8": ("openvino", 4), "openvino-int4": ("openvino", 4),
    "onnx": ("checkpoint", 10), "onnx-int8": ("onnx", 13), "onnx-int4": ("onnx", 10),
}  # fmt: skip
_CHECKPOINT_BYTES = 4


@dataclass(frozen=True)
class Model:
    """A file, and what it is called in the table."""

    path: Path
    name: str
    info: ModelInfo
    shape: dict[str, int]

    @classmethod
    def of(cls, text: str) -> Model:
        path, _, name = text.partition("=")
        info, header = inspect(Path(path)), read_header(Path(path))
        n_weights = sum(
            tensor.shape[0] * tensor.shape[1]
            for tensor in header.tensors.values()
            if len(tensor.shape) == 2 and tensor.name != "token_embd.weight"
        )
        shape = {
            "n_layer": info.n_layer,
            "n_head": info.n_head,
            "head_dim": info.head_dim,
            "n_weights": n_weights,
        }
        return cls(Path(path).resolve(), name or Path(path).stem, info, shape)

    @property
    def scale(self) -> float:
        """Of a round's texts: large models are slow enough to be measured well on fewer."""
        return 1.0 if self.shape["n_weights"] < 1e9 else 0.5


def converted(model: Model, form: str, scratch: Path, python: str, tell: Callable[[str], None]) -> Path:
    """The folder of the model in a form, made if there is none. Raises NotHereError where it cannot be."""
    folder = scratch.resolve() / f"{model.name}-{form}-{model.info.digest[:8]}"
    if (folder / "config.json").exists():
        return folder
    if form == "checkpoint":
        command, bytes_a_weight = ["checkpoint.py", str(model.path)], _CHECKPOINT_BYTES
    else:
        made_of, bytes_a_weight = SOURCES[form]
        command = ["convert.py", form, str(converted(model, made_of, scratch, python, tell))]
    require(int(model.info.size_bytes * WEIGHTS_A_BYTE * bytes_a_weight), f"making {form}")
    tell(f"writing {folder}")
    try:
        made = subprocess.run(
            [python, str(HERE / command[0]), *command[1:], str(folder)],
            capture_output=True, text=True, env=environment(), timeout=MAKING_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHereError(f"no {form}: {error}") from None
    if made.returncode:
        raise NotHereError(f"no {form}: {crashed(made.returncode, made.stderr)}")
    return folder


def require(n_bytes: int, what: str = "it") -> None:
    """Raises NotHereError where this much memory is not free: what does not fit must not bring others down."""
    if (free := machine.available_memory()) < n_bytes + SPARE_BYTES:
        raise NotHereError(f"{what} may need {n_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")


def needed(name: str, model: Model, n_tokens: int, n_ctx: int) -> int:
    """Bytes a contender may take for texts of `n_tokens`.

    llama.cpp's own programs compute a row of the vocabulary for each token of a batch, and keep it a second time.
    """
    info = model.info
    logits = 2 * max(512, n_tokens) * info.n_vocab * 4
    if name in ("llama-embed", "llama-server", "llama-server-best"):
        return 2 * info.size_bytes + n_ctx * info.kv_bytes_per_token + logits
    if name in PEERS:
        peer = PEERS[name]
        n_weights = info.size_bytes * WEIGHTS_A_BYTE
        if peer.kind == "torch":
            n_bytes = n_weights * {"bfloat16": 2, "float32": 4}[peer.options["dtype"]]
        else:
            n_bytes = n_weights * 2  # one byte at most, and laid out a second time
            n_bytes += info.n_vocab * info.n_embd * 4  # the token table, in float32 where it is not quantized
        # Scores of all queries and keys, thrice, where attention is no operation of its own.
        scores = 3 * model.shape["n_head"] * n_tokens * max(n_tokens, 2048) * 4 if "onnx" in peer.form else 0
        return int(n_bytes) + scores + 10**9
    return info.size_bytes + n_tokens * info.kv_bytes_per_token + 10**9
