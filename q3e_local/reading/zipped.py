"""Look into a zip-based file before a library unpacks it: its size, its parts, whether it is encrypted.

Knows zip files; nothing of what DOCX, PPTX and EPUB keep in them.
"""

from __future__ import annotations

import io
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

from q3e_local.errors import InputError
from q3e_local.reading.limits import Limits

_N_PARTS_MAX = 20_000
_PIECE = 65_536
# What Office wrote before 2007, and writes around encrypted files.
COMPOUND_FILE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_BEFORE_MARKUP = b"\xef\xbb\xbf\xfe\xff\0 \t\r\n"  # marks of an encoding, zeros of UTF-16, white space


def open_checked(data: bytes, limits: Limits) -> ZipFile:
    """The zip file, after every part of it was unpacked once within the limits. Raises InputError.

    subtle: a part's size in the directory may be a lie, and ZipFile.read believes it only afterwards. So the parts
    are read here piece by piece, up to what the directory says; then the checksum shows whether that was all.
    """
    if data.startswith(COMPOUND_FILE):
        raise InputError("is encrypted, or from Office 2003 or before; save it anew without a password")
    archive = ZipFile(io.BytesIO(data))
    parts = archive.infolist()
    if len(parts) > _N_PARTS_MAX:
        raise InputError(f"has {len(parts):,} parts, the limit is {_N_PARTS_MAX:,}")
    limits.check_unpacked(sum(part.file_size for part in parts))
    for part in parts:
        if part.flag_bits & 1:
            raise InputError("is encrypted; save a copy without its password")
        if part.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise BadZipFile(f"{part.filename} is compressed by method {part.compress_type}")
        with archive.open(part) as file:
            # Markup becomes a tree in memory. A name says nothing: a book's package may be called b.dat.
            if file.read(_PIECE).lstrip(_BEFORE_MARKUP)[:1] in (b"<", b""):
                limits.check_part(part.filename, part.file_size)
            while file.read(_PIECE):
                pass
    return archive
