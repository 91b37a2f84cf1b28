"""Turn texts into vectors: one row for each text, length 1, in the order of the texts."""

import q3e_local

texts = ["The budget was approved with a reserve of ten percent.", "预算获得批准，预留百分之十。"]

with q3e_local.load("demo") as embedder:  # for real work load("qwen3-embedding:4b"): q3e-local pull brings it here
    result = embedder.embed_documents(texts)

for text, vector, n_tokens in zip(texts, result.vectors, result.prompt_tokens, strict=True):
    print(f"{n_tokens} tokens, {len(vector)} numbers: {vector[:3].round(4)} … {text}")
