"""Question and document read together: how well a document answers a question, by Qwen3-Reranker."""
