"""The engine on llama.cpp."""

from q3e_local.llama.engine import LlamaEngine

__all__ = ["LlamaEngine"]
