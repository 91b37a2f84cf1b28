"""The local HTTP endpoint: Ollama's, OpenAI's, llama-server's and TEI's clients talk to it unchanged.

Layers, each knowing only those before it: worker (a model in a process of its own), queue (merges texts into
batches), models (what is loaded, and for how long), service (one embed path for all), dialects (wire formats), app
(routes, limits, logs).
"""
