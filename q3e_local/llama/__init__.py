"""The engine on llama.cpp: `engine.LlamaEngine`. Importing this room loads no library."""
