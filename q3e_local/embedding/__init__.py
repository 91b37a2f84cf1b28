"""Texts to vectors on any engine: requests, preparations, batches, and the `Embedder` that joins them."""
