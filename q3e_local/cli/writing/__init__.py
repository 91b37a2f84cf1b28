"""How results leave a command: formats of embeddings, files that grow or land, reports, and what people see."""
