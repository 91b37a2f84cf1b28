"""Search over one's own texts and files: chunks, the index file, ranking.

Above the embedder and the readers; knows nothing of terminals or HTTP.
"""
