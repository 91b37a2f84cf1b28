"""The local HTTP endpoint: Ollama's, OpenAI's, llama-server's and TEI's clients talk to it unchanged.

Each row knows only the rows before it:

settings, errors    what a server is started with, and what can go wrong
service             the port: one embed path for all dialects; served_names: the names that clients use
workers             a model in a process of its own, texts merged into batches, which models are loaded
local               the service on this machine's models and indexes
dialects, http      the wire formats; sockets, limits, logs and metrics
app, run            all routes together; a server from its start to its end
"""
