"""The student's shape: what the trained transformer and its GGUF must agree on."""

N_EMBD, N_HEAD, N_FF, N_LAYER = 256, 4, 512, 2
HEAD_DIM = N_EMBD // N_HEAD
EPSILON, ROPE_BASE = 1e-6, 10_000.0
