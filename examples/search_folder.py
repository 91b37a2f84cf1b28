"""Ask the index of a folder. Make it first: q3e-local index examples/notes -m demo --db notes.q3e"""

import sys

import q3e_local

question = " ".join(sys.argv[1:]) or "the website was down"

with q3e_local.load("demo") as embedder, q3e_local.VectorIndex("notes.q3e", embedder) as index:
    for hit in index.search(question, k=3):
        print(f"{hit.score:.3f}  {hit.file}:{hit.line}  {' > '.join(hit.headings)}")
