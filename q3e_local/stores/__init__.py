"""Vector stores of other programs: where one is, what is put into it, and how it is brought up to date.

`parse` reads an address, `opened` opens the store there, `Filling` puts rows into it. One module a store has the only
import of that store's library; none is imported before it is needed. Knows rows with vectors; nothing of models,
indexes or the command line.
"""
