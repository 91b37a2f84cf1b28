"""Files into an index: what changed, its chunks, their vectors."""
