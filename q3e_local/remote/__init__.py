"""Running q3e-local servers in place of a model in this process: `embedder` for one, `fleet` for several, `reranker`."""
