"""What a command reads: `find` the files, `check` their records before a model is loaded, read their texts in order.

Knows the command line's names and options; leaves what is in a file to reading.records.
"""

from __future__ import annotations

from q3e_local.cli.texts.finding import find
from q3e_local.cli.texts.layout import STDIN, Layout, layout_options
from q3e_local.cli.texts.source import Source
from q3e_local.cli.texts.survey import Blank, check, read_all
from q3e_local.reading.records import Item

__all__ = ["STDIN", "Blank", "Item", "Layout", "Source", "check", "find", "layout_options", "read_all"]
