"""Search over the user's texts and files: chunks, the index file, ranking.

Stands above the embedder and the readers. Knows nothing of terminals or HTTP.
"""
