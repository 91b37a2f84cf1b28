"""The jobs people do with vectors: functions on unit rows, and on the texts they are of.

    from q3e_local import jobs

    texts = ["…", "…"]
    vectors = embedder.embed_documents(texts).vectors
    jobs.duplicates(vectors, threshold=0.95, texts=texts)

Every result is a frozen record that a notebook shows as a table or a picture. Knows no files and no terminal;
`cluster` and `plot` with t-SNE need scikit-learn, `write_png` matplotlib: pip install 'q3e-local[analysis]'.
"""

from __future__ import annotations

from q3e_local.jobs.chaptering import Chapter, Chapters, chapters, check_chapters
from q3e_local.jobs.clustering import Cluster, Clusters, check_clusters, cluster
from q3e_local.jobs.comparing import Pairs, Similarities, check_matrix, filter_pairs, similar
from q3e_local.jobs.drawing import html_page, write_png
from q3e_local.jobs.grouping import Duplicates, Group, duplicates, first_of_each
from q3e_local.jobs.inspecting import Inspection, Seen, Token, inspect, seen
from q3e_local.jobs.mapping import METHODS, Map, Method, check_method, plot
from q3e_local.jobs.matching import Matches, match
from q3e_local.jobs.naming import key_words

__all__ = [
    "METHODS",
    "Chapter",
    "Chapters",
    "Cluster",
    "Clusters",
    "Duplicates",
    "Group",
    "Inspection",
    "Map",
    "Matches",
    "Method",
    "Pairs",
    "Seen",
    "Similarities",
    "Token",
    "chapters",
    "check_chapters",
    "check_clusters",
    "check_matrix",
    "check_method",
    "cluster",
    "duplicates",
    "filter_pairs",
    "first_of_each",
    "html_page",
    "inspect",
    "key_words",
    "match",
    "plot",
    "seen",
    "similar",
    "write_png",
]
