"""How a map names its texts and clusters: paths below the folder that all files share, Markdown without its marks,
and the key words of a cluster.

Knows ids, places and texts of a collection; nothing of vectors or drawing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath

from q3e_local import jobs
from q3e_local.cli.jobs.collection import Collection
from q3e_local.reading.kinds import kind_of


def folder_names(sources: Sequence[str]) -> list[str]:
    """The folder of each file, below the folder that all of them share. That folder itself has its last name."""
    shared = _shared_folder(sources)
    return [_below(PurePosixPath(source).parent, shared) or shared.name or "." for source in sources]


def short_names(found: Collection) -> tuple[str, ...]:
    """The id of each text, with the path of its file shortened to what lies below the folder that all files share."""
    shared = _shared_folder([row.source for row in found.rows])
    names = []
    for row in found.rows:
        rest = row.id.removeprefix(row.source)
        is_path = bool(row.source) and rest != row.id
        names.append((_below(PurePosixPath(row.source), shared) + rest) if is_path else row.id)
    return tuple(names)


def plain_texts(found: Collection) -> tuple[str, ...]:
    """The texts as people read them: those of Markdown files without the marks of headings, emphasis and links."""
    from q3e_local.reading.formats.markdown import plain_text

    # A text of marks alone, such as a rule, is better than none.
    return tuple(
        plain_text(row.text).strip() or row.text if kind_of(row.source) == "markdown" else row.text
        for row in found.rows
    )


def cluster_words(found: Collection, parted: jobs.Clusters) -> list[tuple[str, ...]]:
    """The key words of each cluster; none where there are vectors alone."""
    if not found.has_texts:
        return [()] * len(parted.clusters)
    from q3e_local.search.database.query_words import tokens

    return list(jobs.key_words(plain_texts(found), parted.labels.tolist(), tokens))


def _shared_folder(sources: Sequence[str]) -> PurePosixPath:
    """The deepest folder above all files; the empty path where there is none, or not all texts are of files."""
    folders = {PurePosixPath(source).parent.as_posix() for source in sources}
    if "" in sources or len({folder.startswith("/") for folder in folders}) != 1:
        return PurePosixPath()
    return PurePosixPath(os.path.commonpath(folders).replace(os.sep, "/"))


def _below(path: PurePosixPath, folder: PurePosixPath) -> str:
    name = (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()
    return "" if name == "." else name
