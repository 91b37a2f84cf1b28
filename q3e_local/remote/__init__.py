"""A running q3e-local server in place of a model in this process: `embedder` and `reranker`."""
