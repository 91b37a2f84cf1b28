"""The bag as a transformer: a layer of Qwen3 that averages.

Its queries are zero, so every token of a text has the same share of the attention, and its feed-forward network adds
nothing. The last token's output is the mean of the rows, and each row is as long as its token is heavy.
"""

import numpy as np
import torch
from bag import Bag
from shape import HEAD_DIM, N_EMBD, N_FF, N_MEANING
from torch.nn import functional

# How much longer the mean is than the end token's own row, which the residual stream adds.
GAIN = 64.0
END_ROW = 0.01
# What a text without letters and digits means, whose tokens mean nothing: without it the vector would be 0.
SILENCE = 2e-5


def table(bag: Bag) -> torch.Tensor:
    """Rows for the token table (n_rows + 1, N_EMBD), the last one of the end token.

    The longest thousandth of the rows is cut, or the others would be short and the filling long. The end token's row
    is short, for the sake of the residual stream.
    """
    n_filling = N_EMBD - N_MEANING
    rows = functional.pad(bag.weighed().detach(), (0, n_filling, 0, 1))
    lengths = rows.norm(dim=1, keepdim=True)
    rows *= (0.98 * N_EMBD) ** 0.5 / lengths.clamp(min=lengths.quantile(0.999))
    rows[:, N_MEANING:] = ((N_EMBD - rows.square().sum(dim=1, keepdim=True)) / n_filling).sqrt()
    rows[-1] *= END_ROW
    rows[-1, :N_MEANING] = SILENCE
    return rows


def parameters(bag: Bag) -> dict[str, np.ndarray]:
    """Every parameter of the transformer by its name in the file, without `weight`."""
    ones, zeros = np.ones(N_EMBD, np.float32), np.zeros((N_EMBD, N_EMBD), np.float32)
    of_meaning = np.diag(np.float32(GAIN) * (np.arange(N_EMBD) < N_MEANING))
    layer = {
        "attn_norm": ones,
        "attn_q": zeros,
        "attn_k": zeros,
        "attn_v": np.diag(ones),
        "attn_q_norm": ones[:HEAD_DIM],
        "attn_k_norm": ones[:HEAD_DIM],
        "attn_output": of_meaning,
        "ffn_norm": ones,
        "ffn_gate": zeros[:N_FF],
        "ffn_up": zeros[:N_FF],
        "ffn_down": zeros[:, :N_FF],
    }
    return {
        "token_embd": table(bag).numpy(),
        **{f"blk.0.{name}": each for name, each in layer.items()},
        "output_norm": ones,
    }
