"""How results leave a command: formats, files, tables, and the words for numbers."""
