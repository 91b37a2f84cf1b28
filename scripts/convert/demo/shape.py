"""The model's shape: one layer, and matrices of whole blocks of K-quants, so that it is quantized like a real one."""

N_EMBD = N_FF = 256
N_HEAD, HEAD_DIM = 4, 64
EPSILON, ROPE_BASE = 1e-6, 10_000.0
# A row of the token table begins with so many numbers of meaning. The others, a block of Q8_0, are equal and fill the
# row up to root mean square 1, so that the first norm keeps its length: how much a token weighs among others.
N_MEANING = N_EMBD - 32
