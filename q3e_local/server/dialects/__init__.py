"""The wire formats: each module turns one dialect's requests into the service's, and its results and errors back.

Knows HTTP and JSON shapes; nothing of how a vector is made. `routes`, `body`, `names` and `keep_alive` are what
the dialects share.
"""
