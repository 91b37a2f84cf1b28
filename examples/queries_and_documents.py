"""Find the document that answers a question. A question gets the model's instruction, a document none."""

import q3e_local
from q3e_local.vectors import scores, top_k

documents = ["The budget was approved.", "The office moves in April.", "Checkout was down for forty minutes."]
questions = ["when does the office move?", "how long was checkout down?"]

with q3e_local.load("demo") as embedder:
    found = scores(embedder.embed_queries(questions).vectors, embedder.embed_documents(documents).vectors)

for question, places, values in zip(questions, *top_k(found, 1), strict=True):
    print(f"{question}  ->  {documents[places[0]]}  ({values[0]:.2f})")
