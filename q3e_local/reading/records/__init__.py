"""Records of a file, each with a text: lines, JSON Lines, delimited tables, Parquet, Excel workbooks.

Each format has a module, whose `read` takes an open binary file and gives an `Item` for each record, in order and
one at a time: no file is held whole. A record that cannot be read is an Item that says why. Knows nothing of folders,
options or models.
"""

from __future__ import annotations

from q3e_local.reading.records.item import Cause, Item, Wanted

__all__ = ["Cause", "Item", "Wanted"]
