"""The wire formats: each module turns one dialect's requests into the service's, and its results and errors back.

Knows HTTP and JSON shapes; nothing of how a vector is made. The dialects share the other modules: `fields` and
`body` (what a request may hold, and how it is read), `failures` (what went wrong), `routes` and `openapi`, `names`.
"""
