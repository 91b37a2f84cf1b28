"""Texts to vectors, given any engine: requests, prompts, batches, and the `Embedder` that joins them."""
