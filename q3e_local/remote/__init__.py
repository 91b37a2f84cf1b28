"""Running q3e-local servers in place of a model in this process: `embedder`, `reranker`, `fleet` for several."""
