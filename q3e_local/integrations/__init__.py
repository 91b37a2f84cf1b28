"""What other programs ask of a model, in their own protocols: a module each, which imports that program.

Knows this package by its public names alone, as everybody who writes such a module does. Nothing in the package
imports this wing, so none of these programs is needed for anything else.
"""
