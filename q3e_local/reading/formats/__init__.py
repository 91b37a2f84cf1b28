"""The kinds of files that are read, a module each, loaded when the first file of its kind comes."""
