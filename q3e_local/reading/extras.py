"""Which kinds of files need a package of the extra `documents`, and whether that package is installed.

Knows the names of modules and packages; imports none of them.
"""

from __future__ import annotations

from importlib.util import find_spec

from q3e_local.errors import MissingPackageError

EXTRA = "documents"

# Kind: what people call its files, the module that its reader imports, and the package that brings the module.
_NEEDED = {
    "docx": ("Word documents", "docx", "python-docx"),
    "eml": ("mails", "lxml", "lxml"),
    "epub": ("EPUB books", "lxml", "lxml"),
    "html": ("HTML pages", "lxml", "lxml"),
    "odt": ("OpenDocument texts", "odfdo", "odfdo"),
    "pdf": ("PDF files", "pypdf", "pypdf"),
    "pptx": ("PowerPoint presentations", "pptx", "python-pptx"),
    "rst": ("reStructuredText", "docutils", "docutils"),
    "rtf": ("Rich Text Format", "striprtf", "striprtf"),
    "xlsx": ("Excel workbooks", "openpyxl", "openpyxl"),
}
KINDS = frozenset(_NEEDED)


def missing(kind: str) -> MissingPackageError | None:
    """The error of a file of this kind where the package of its reader is not installed; else None."""
    if kind not in _NEEDED:
        return None
    files, module, package = _NEEDED[kind]
    return None if find_spec(module) is not None else MissingPackageError(f"reading {files}", package, EXTRA)


def need(kind: str) -> None:
    """Raise MissingPackageError where the package of this kind's reader is not installed."""
    error = missing(kind)
    if error is not None:
        raise error
