"""A running q3e-local server in place of a model in this process: `connection`, `embedder` and `tokens`.

Needs no httpx: the standard library connects, and reads no proxy variables, so that texts stay on this machine unless
the address says otherwise.
"""
