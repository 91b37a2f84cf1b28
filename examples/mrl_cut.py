"""Shorter vectors: cut to the first numbers and scale to length 1 again, which the model was trained for (MRL)."""

import numpy as np

import q3e_local
from q3e_local.vectors import finish

with q3e_local.load("demo") as embedder:
    whole = embedder.embed_documents(["The budget was approved."]).vectors
    short = embedder.embed_documents(["The budget was approved."], dim=64).vectors

print(f"{whole.shape[1]} numbers take {whole.nbytes} bytes, {short.shape[1]} take {short.nbytes}")
print("a stored vector can be cut later, with the same result:", np.allclose(finish(whole, 64), short, atol=1e-6))
