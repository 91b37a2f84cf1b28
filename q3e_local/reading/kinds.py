"""Which kind a file is, by its name, and where that says nothing by its first bytes.

Knows suffixes; neither folders nor how a kind is read.
"""

from __future__ import annotations

from q3e_local.reading.encodings import is_text

N_SNIFFED = 4096  # bytes that show whether a file is text

# Kind: the suffixes by which it is known.
SUFFIXES = {
    "text": ".txt .text .log .tex .org .adoc .asciidoc .srt .vtt .textile .wiki",
    "markdown": ".md .markdown .mdown .mdx .qmd .rmd",
    "rst": ".rst .rest",
    "html": ".html .htm .xhtml",
    "pdf": ".pdf",
    "docx": ".docx",
    "pptx": ".pptx",
    "xlsx": ".xlsx .xlsm",
    "odt": ".odt .ott",
    "rtf": ".rtf",
    "eml": ".eml",
    "doc": ".doc .dot .wps",
    "ppt": ".ppt .pps .dps .odp",
    "xls": ".xls .xlsb .et .ods",
    "epub": ".epub",
    "notebook": ".ipynb",
    "csv": ".csv .tsv .tab",
    "jsonl": ".jsonl .ndjson",
    "code": """
        .py .pyi .pyx .js .mjs .cjs .jsx .ts .tsx .vue .svelte .java .kt .kts .scala .groovy .c .h .cc .cpp .cxx .hh
        .hpp .hxx .cu .cs .fs .vb .go .rs .swift .m .mm .rb .php .pl .pm .lua .r .jl .dart .ex .exs .erl .hrl .hs .ml
        .mli .clj .cljs .el .lisp .scm .zig .nim .v .vhd .sv .f90 .pas .asm .s .sh .bash .zsh .fish .ps1 .bat .cmd
        .sql .proto .graphql .css .scss .sass .less .cmake .mk .gradle .tf .yaml .yml .toml .ini .cfg .conf .json .xml
    """,
}
_KINDS = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes.split()}

# What nobody expects to be read, and what a summary calls it.
_LEFT_OUT = {
    "archive": """
        .zip .tar .gz .tgz .bz2 .xz .zst .7z .rar .lz4 .iso .dmg .img .jar .war .whl .egg .deb .rpm .apk .msi .cab
    """,
    "picture": ".png .jpg .jpeg .gif .bmp .tif .tiff .webp .ico .icns .svg .heic .psd .ai .eps .raw .avif .xcf",
    "audio or video": ".mp3 .wav .flac .ogg .m4a .aac .wma .mp4 .mkv .mov .avi .webm .wmv .flv .m4v",
    "font": ".ttf .otf .woff .woff2 .eot",
    "model or data": """
        .gguf .ggml .safetensors .pt .pth .ckpt .onnx .pb .h5 .hdf5 .keras .tflite .npy .npz .pkl .pickle .joblib
        .parquet .arrow .feather .orc .avro .bin .mat .rds
    """,
    "database": ".db .sqlite .sqlite3 .q3e .mdb .accdb .db-wal .db-shm .sqlite-wal .sqlite-shm .q3e-wal .q3e-shm",
    "program": ".exe .dll .so .dylib .o .obj .a .lib .class .pyc .pyo .pyd .wasm .swf .app .elf .ko",
    "generated code": ".min.js .min.css .map .lock",
}
_REASONS = {suffix: reason for reason, suffixes in _LEFT_OUT.items() for suffix in suffixes.split()}

# Documents without a reader: they are listed, because people expect that documents are read.
_DOCUMENTS = """
    .docm .pptm .pages .numbers .key .mobi .azw .azw3 .djvu .caj .chm .mht .mhtml .msg .one .ps .xps .hwp .fb2
"""
_NO_READER = frozenset(_DOCUMENTS.split())


def kind_of(name: str, head: bytes = b"") -> str | None:
    """The kind of a file by its name, else by how it begins; None for what is not text. Case does not matter."""
    kind = kind_by_name(name)
    if kind is None and is_text(head):
        return "code" if head.startswith(b"#!") else "text"
    return kind


def kind_by_name(name: str) -> str | None:
    """The kind that a file's name says; None for a name that says nothing."""
    return next((_KINDS[suffix] for suffix in _suffixes(name) if suffix in _KINDS), None)


def left_out(name: str) -> str | None:
    """What a file is that is passed over as a matter of course: "picture", "archive"."""
    return next((_REASONS[suffix] for suffix in _suffixes(name) if suffix in _REASONS), None)


def without_reader(name: str) -> str | None:
    """The suffix of a document that we have no reader for."""
    return next((suffix for suffix in _suffixes(name) if suffix in _NO_READER), None)


def _suffixes(name: str) -> list[str]:
    """The last two suffixes together, then the last, in lower case: `.min.js` and `.js`."""
    _, *found = name.lower().lstrip(".").split(".")
    return [f".{'.'.join(found[-n:])}" for n in (2, 1) if len(found) >= n]
