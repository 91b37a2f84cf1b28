"""What stands in a model file: its header, and what of it matters here."""
