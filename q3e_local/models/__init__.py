"""Which models there are, where they are on this machine, and how they come here."""
