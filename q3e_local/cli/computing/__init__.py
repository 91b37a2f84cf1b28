"""What computes for a command: a model in this process, or a running server."""
