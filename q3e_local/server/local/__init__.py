"""The service on this machine: names, texts, caches and indexes, around the models in memory."""
