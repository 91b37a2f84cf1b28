"""reStructuredText: the section titles docutils finds; what stands between them is paragraphs.

Nothing that a file asks for is done: no include, no raw, no other file is read. The only module that imports
docutils.
"""

from __future__ import annotations

from collections.abc import Iterator

from docutils import nodes, utils
from docutils.frontend import get_default_settings
from docutils.parsers.rst import Parser
from docutils.parsers.rst.states import Inliner

from q3e_local.errors import InputError
from q3e_local.reading.assembling import Outline
from q3e_local.reading.document import Document
from q3e_local.reading.failures import parsing
from q3e_local.reading.limits import Limits
from q3e_local.reading.lines import Block, document_of

# Characters docutils ends a line at, and a file's lines do not.
_NO_LINE_ENDS = str.maketrans(dict.fromkeys("\v\f\x1c\x1d\x1e\x85\u2028\u2029", " "))


def read(text: str, limits: Limits) -> Document:
    """Broken markup is still a text: where docutils gives up, it has no titles."""
    try:
        with parsing("reStructuredText"):
            blocks = list(_titles(text))
    except InputError:
        blocks = []
    return document_of(text, blocks)


def _titles(text: str) -> Iterator[Block]:
    settings = get_default_settings(Parser)
    settings.file_insertion_enabled = settings.raw_enabled = False
    settings.report_level = settings.halt_level = 5  # above all there are: say nothing, go on
    settings.warning_stream = False
    settings.syntax_highlight = "none"
    document = utils.new_document("", settings)
    # What stands inside a paragraph is most of the work, and titles are all that is looked for.
    inliner = Inliner()
    inliner.parse = lambda text, lineno, memo, parent: ([nodes.Text(text)], [])
    Parser(inliner=inliner).parse(text.translate(_NO_LINE_ENDS), document)
    lines = text.split("\n")
    outline = Outline()
    for section in document.findall(nodes.section):
        title = section[0]
        under = section.line  # the line under the title, from 1
        if not isinstance(title, nodes.title) or under is None or not 2 <= under <= len(lines):
            continue
        overlined = under >= 3 and _is_rule(lines[under - 3]) and _is_rule(lines[under - 1])
        first = under - 3 if overlined else under - 2
        yield Block(first, under, outline.enter(_level(section), title.astext().replace("``", "")), True)


def _level(section: nodes.section) -> int:
    level, parent = 1, section.parent
    while isinstance(parent, nodes.section):
        level, parent = level + 1, parent.parent
    return level


def _is_rule(line: str) -> bool:
    return len(set(line.rstrip())) == 1 and not line[0].isalnum()
