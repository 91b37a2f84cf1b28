"""What tests of scripts/convert/demo share: its modules, which are no package, and the oracle's names of tensors."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import oracle
import pytest
from paths import ROOT

FOLDER = ROOT / "scripts" / "convert" / "demo"
CONFIG = oracle.Config(n_layer=1, n_ff=256, n_head_kv=4, rope_base=10_000.0)
NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


@contextmanager
def imported(folder: Path, names: Iterable[str], hidden: Iterable[str] = ()) -> Iterator[SimpleNamespace]:
    """Modules of a folder. They, and those that they may import as `hidden`, are found only within the context.

    Other modules may have the same names: those stand in sys.modules again afterwards.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *sys.path])
        for name in (*names, *hidden):
            patch.setitem(sys.modules, name, sys)
            del sys.modules[name]
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
