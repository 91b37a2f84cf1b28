"""Everything of HTTP that no dialect has a part in: sockets, limits, logs and metrics."""
