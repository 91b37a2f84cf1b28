"""The texts of the demo model: packages are held to their sums, read, and made plain or dropped."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from demo_scripts import FOLDER, imported

TEXTS = FOLDER / "texts"
posix = pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
TODAY = ("The library is closed today", "图书馆今天关门")
# They put down the file that stands beside them, as the clients of the registries do.
CLIENTS = {
    "npm": 'cp "$(dirname "$0")/package" "$4/package.tgz"',
    "apt-get": 'cp "$(dirname "$0")/package" ./package.deb',
    "dpkg-deb": 'mkdir "$3" && tar -xzf "$2" -C "$3"',
}


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    with imported(TEXTS, [path.stem for path in TEXTS.glob("*.py")]) as found:
        yield found


@pytest.fixture
def clients(parts, tmp_path, monkeypatch) -> SimpleNamespace:
    """Clients of registries that have `package`, at first the archive of one file; `started` has their calls."""
    folder = tmp_path / "clients"
    folder.mkdir()
    for name, content in CLIENTS.items():
        (folder / name).write_text(f"#!/bin/sh\n{content}\n")
        (folder / name).chmod(0o755)
    (folder / "package").write_bytes(archive({"package/notes.txt": "hello"}))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    run, started = subprocess.run, []

    def noted(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", noted)
    return SimpleNamespace(package=folder / "package", started=started)


def archive(files: dict[str, str]) -> bytes:
    """A .tar.gz with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# Packages


@posix
@pytest.mark.parametrize(("kind", "client"), [("npm", "npm pack"), ("debian", "apt-get download")])
def test_a_package_is_downloaded_once_and_unpacked(parts, clients, tmp_path, kind, client):
    package = parts.fetch.Package("@scope/words", kind, "1:2.0", sum_of(clients.package))
    tree = parts.fetch.fetch(package, tmp_path / "packages")
    assert (tree / "package" / "notes.txt").read_text() == "hello"
    assert " ".join(clients.started[0]).startswith(client)
    assert clients.started[0][-1] == {"npm": "@scope/words@1:2.0", "debian": "@scope/words=1:2.0"}[kind]
    n_started = len(clients.started)
    assert parts.fetch.fetch(package, tmp_path / "packages") == tree
    assert len(clients.started) == n_started
    assert [path.name for path in (tmp_path / "packages").iterdir()] == [f"scope-words-1-2.0-{package.sha256[:8]}"]


@posix
@pytest.mark.parametrize("kind", ["npm", "debian"])
def test_a_package_with_another_sum_is_refused_and_not_kept(parts, clients, tmp_path, kind):
    pinned, found = "0" * 64, sum_of(clients.package)
    with pytest.raises(parts.fetch.FetchError, match=r"words 2\.0 is not the package that is pinned") as refused:
        parts.fetch.fetch(parts.fetch.Package("words", kind, "2.0", pinned), tmp_path / "packages")
    assert f"expected SHA-256 {pinned}, found {found}" in str(refused.value)
    assert list((tmp_path / "packages").rglob("notes.txt")) == []
    tree = parts.fetch.fetch(parts.fetch.Package("words", kind, "2.0", found), tmp_path / "packages")
    assert (tree / "package" / "notes.txt").exists()


@posix
def test_what_the_client_says_of_a_package_that_is_not_there_is_passed_on(parts, clients, tmp_path):
    clients.package.unlink()
    with pytest.raises(parts.fetch.FetchError, match=r"words 2\.0 could not be downloaded: cp: .*package"):
        parts.fetch.fetch(parts.fetch.Package("words", "npm", "2.0", "0" * 64), tmp_path / "packages")


def test_a_client_that_is_not_installed_is_named(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(parts.fetch.FetchError, match=r"words 2\.0 needs apt-get, which is not here"):
        parts.fetch.fetch(parts.fetch.Package("words", "debian", "2.0", "0" * 64), tmp_path / "packages")


PINNED = 'kind = "npm"\nversion = "1"\nsha256 = "{sum}"\ntexts = [{texts}]\n'
TREES = '{ reader = "json trees", english = "**/en.json", chinese = "zh.json" }'
TALK = '{ reader = "conversations", files = { en = "**/talk.yml" }, limit = 2 }'


@posix
def test_clean_lines_are_gathered_from_packages_each_once(clients, tmp_path):
    english = {"open": "Open the <b>file</b>", "again": "Open the file", "count": "{n} files are open"}
    chinese = {"open": "打开文件(_O)", "again": "打开文件", "count": "打开了{n}个文件"}
    talk = "talk:\n- - How are you?\n  - {name} left.\n  - I am well.\n- - What is it?\n  - I do not know.\n"
    files = {"en.json": json.dumps(english), "zh.json": json.dumps(chinese), "talk.yml": talk}
    clients.package.write_bytes(archive(files))
    folder = shutil.copytree(TEXTS, tmp_path / "texts")
    sources = [("first", TREES), ("second", f"{TREES}, {TALK}")]
    listed = [f"[{name}]\n" + PINNED.format(sum=sum_of(clients.package), texts=texts) for name, texts in sources]
    (folder / "sources.toml").write_text("".join(listed))
    work = tmp_path / "work"
    command = [sys.executable, str(folder / "gather.py"), "-w", str(work)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONIOENCODING": "utf-8"})
    pairs, sentences = work / "pairs.jsonl", work / "sentences.jsonl"
    pair = {"source": "first", "kind": "translation", "la": "en", "a": "Open the file", "lb": "zh", "b": "打开文件"}
    assert [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()] == [pair]
    said = [json.loads(line)["text"] for line in sentences.read_text(encoding="utf-8").splitlines()]
    assert said == ["How are you?", "What is it?"]  # two of four, at even distances
    clients.package.unlink()  # nothing is downloaded again
    before = pairs.read_bytes(), sentences.read_bytes()
    subprocess.run(command, check=True, capture_output=True)
    assert (pairs.read_bytes(), sentences.read_bytes()) == before


# Readers


def catalogue(messages: dict[str, str]) -> bytes:
    """A compiled catalogue of gettext, as its manual describes it."""
    texts = [text.encode() for pair in zip(*messages.items(), strict=True) for text in pair]
    n, start = len(messages), 28 + 16 * len(messages)
    table = b""
    for text in texts:
        table += struct.pack("<II", len(text), start)
        start += len(text) + 1
    return struct.pack("<7I", 0x950412DE, 0, n, 28, 28 + 8 * n, 0, 0) + table + b"\0".join(texts) + b"\0"


def test_a_catalogue_gives_messages_without_contexts_and_of_plurals_the_singular(parts, tmp_path):
    messages = {"": "Language: zh_CN\n", "menu\x04Open": "打开", "one file\0many files": "一个文件\0许多文件"}
    written(tmp_path / "zh_CN" / "a.mo", catalogue(messages))
    found = [(pair.a, pair.b) for pair in parts.messages.gettext(tmp_path, "zh_CN/*.mo")]
    assert found == [("", "Language: zh_CN\n"), ("Open", "打开"), ("one file", "一个文件")]


def test_json_trees_give_strings_of_the_same_place(parts, tmp_path):
    english = {"en": {"menu": {"open": "Open", "new": "New"}, "one": ["An item"], "several": ["a", "b"], "n": 3}}
    chinese = {"zh-CN": {"menu": {"open": "打开"}, "one": ["一项"], "several": ["乙", "甲"], "n": 3, "open": "错"}}
    written(tmp_path / "package" / "en.json", json.dumps(english))
    written(tmp_path / "package" / "zh-CN.json", json.dumps(chinese))
    found = parts.messages.json_trees(tmp_path, "**/en.json", "zh-CN.json")
    assert [(pair.a, pair.b) for pair in found] == [("Open", "打开"), ("An item", "一项")]


def documents_of(parts: SimpleNamespace, folder: Path, english: str, chinese: str) -> list[tuple[str, str, str]]:
    """Kind and sides of the pairs of two documents."""
    written(folder / "tree" / "en" / "page.html", f"<html><body>{english}</body></html>")
    written(folder / "beside" / "zh" / "page.html", f"<html><body>{chinese}</body></html>")
    found = parts.documents.documents(folder / "tree", folder / "beside", "en/*.html", {"en/": "zh/"})
    return [(pair.kind, pair.a, pair.b) for pair in found]


def test_blocks_of_documents_are_paired_by_their_ids(parts, tmp_path):
    english = "<p id='a'>First <b>words</b>.</p><pre>code</pre><p id='b'>Only English.</p><ul><li id='c'>An item</ul>"
    chinese = "<ul><li id='c'>一项</ul><p id='a'>最初的话。</p><nav><p id='b'>导航</p></nav>"
    pairs = documents_of(parts, tmp_path, english, chinese)
    assert pairs == [("translation", "First words.", "最初的话。"), ("translation", "An item", "一项")]


def test_blocks_of_documents_without_ids_are_paired_in_turn_where_both_have_the_same(parts, tmp_path):
    english = "<p>First.</p><ul><li>An item<li>Another</ul>"
    pairs = documents_of(parts, tmp_path / "same", english, "<p>第一。</p><ul><li>一项<li>另一项</ul>")
    assert [(a, b) for _, a, b in pairs] == [("First.", "第一。"), ("An item", "一项"), ("Another", "另一项")]
    assert documents_of(parts, tmp_path / "other", english, "<p>第一。</p><ul><li>一项</ul>") == []


@pytest.mark.parametrize("line_break", ["<br>", "<br/>"])
def test_a_line_break_parts_words(parts, tmp_path, line_break):
    pairs = documents_of(parts, tmp_path, f"<p>one{line_break}two</p>", "<p>一二</p>")
    assert pairs == [("translation", "one two", "一二")]


def test_headings_are_paired_with_the_sentences_that_follow(parts, tmp_path):
    chinese = "<h2>打印文件</h2><p>先选打印机。</p><h2>保存的文件</h2><div>没有句号</div>"
    english = "<h1>Print a file</h1><p>Choose a printer.</p><h3>Do so:</h3><p>Now.</p><h2>Options</h2><li>One.</li>"
    pairs = documents_of(parts, tmp_path / "two", english, chinese)
    assert pairs == [("title", "Print a file", "Choose a printer."), ("title", "打印文件", "先选打印机。")]
    repeated = "".join(f"<h2>Overview</h2><p>Page {n}.</p>" for n in range(4)) + english
    pairs = documents_of(parts, tmp_path / "many", repeated, chinese)
    assert [a for _, a, _ in pairs] == ["Print a file", "打印文件"]


def ranked(path: Path, words: list[str]) -> Path:
    """Words as wordfreq's files have them, the most frequent first: msgpack, whose short strings begin with 0xA0."""
    packed = b"".join(bytes([0xA0 + len(word.encode())]) + word.encode() for word in words)
    return written(path, gzip.compress(b"\xdc\x00\x09" + packed))


CEDICT = """\
# CC-CEDICT
討論 讨论 [tao3 lun4] /to discuss/CL:次[ci4]/
商討 商讨 [shang1 tao3] /to discuss/
文件 文件 [wen2 jian4] /(computing) file; document 檔案[dang4 an4]/surname Wen/
王 王 [Wang2] /king/
裏 里 [li3] /variant of 裡|里[li3]/
罕見 罕见 [han3 jian4] /seldom met/
"""


def test_a_dictionary_gives_frequent_words_that_are_no_names_or_variants(parts, tmp_path):
    written(tmp_path / "cedict_1.txt.gz", gzip.compress(CEDICT.encode()))
    ranked(tmp_path / "zh.gz", ["王", "里", "讨论", "商讨", "文件", "罕见"])
    pair = parts.lines.Pair
    assert list(parts.dictionaries.cedict(tmp_path, tmp_path, "cedict*.gz", "zh.gz", 5)) == [
        pair("definition", "zh", "讨论", "en", "to discuss"),
        pair("definition", "zh", "商讨", "en", "to discuss"),
        pair("definition", "zh", "文件", "en", "file; document"),
        pair("synonym", "zh", "讨论", "zh", "商讨"),
    ]


WORDNET = """\
  1 This software and database is being provided to you under a license
00001740 14 n 02 meeting 0 get-together 0 001 ~ 00001930 n 0000 | an informal gathering; "the `meeting' was short"
00001741 14 n 02 gathering 0 conventicle 0 000 | a group of persons
00001742 15 n 01 Meeting 0 000 | a town that has this name
00001743 15 n 01 town 0 001 @i 00001742 n 0000 | one town of many
00001744 15 n 01 small 0 000 | (offensive) what nobody should say
"""


def test_wordnet_gives_definitions_synonyms_and_examples_of_frequent_words(parts, tmp_path):
    written(tmp_path / "wordnet" / "data.noun", WORDNET)
    ranked(tmp_path / "en.gz", ["get", "together", "meeting", "town", "small", "gathering", "conventicle"])
    pair, sentence = parts.lines.Pair, parts.lines.Sentence
    assert list(parts.dictionaries.wordnet(tmp_path, tmp_path, "wordnet/data.*", "en.gz", 6)) == [
        pair("definition", "en", "meeting", "en", "an informal gathering"),
        pair("synonym", "en", "meeting", "en", "get-together"),
        sentence("en", "the 'meeting' was short"),
        pair("definition", "en", "gathering", "en", "a group of persons"),
    ]


# Cleaning


def cleaned(parts: SimpleNamespace, english: str, chinese: str) -> list[tuple[str, str]]:
    return [(pair.a, pair.b) for pair in parts.cleaning.clean(parts.lines.translation(english, chinese))]


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("Open the _file", "打开文件(_F)"),
        ("Open the &file", "打开文件（&F）"),
        ("<b>Open</b> the<br/>file", "<p>打开</p>[b]文件[/b]"),
        ("Open the [file](https://example.org/a)", "打开文件（译注：或目录）"),
        ("  1. Open   the file", "- 打开文件"),
        ("&quot;Open the file&quot;", "「打开文件」"),
    ],
)
def test_accelerators_and_markup_are_taken_off(parts, english, chinese):
    assert cleaned(parts, english, chinese) == [("Open the file", "打开文件")]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "The car costs 3.5 million (or so); e.g. a red one. It's dear!"),
        ("zh", "他说：“快停车。”然后他走了。"),
        ("en", "3.5 million people live here"),
        ("en", 'He said "Stop the car." Then he left.'),
    ],
)
def test_a_plain_text_stays_as_it_is(parts, language, text):
    assert [line.text for line in parts.cleaning.clean(parts.lines.Sentence(language, text))] == [text]


HELD = ["%d", "%1$s", "{count}", "${count}", "$count", "%(count)s", "<0>", "[[count]]"]


@pytest.mark.parametrize("held", [*HELD, "%sW"])
@pytest.mark.parametrize(("language", "text"), [("en", "It copied {} files to it"), ("zh", "它已复制 {} 文件")])
def test_a_text_with_a_placeholder_is_dropped(parts, language, text, held):
    sentences = [parts.lines.Sentence(language, text.format(each)) for each in ("9", held)]
    assert [line for each in sentences for line in parts.cleaning.clean(each)] == sentences[:1]


def test_long_paragraphs_are_cut_at_the_ends_of_sentences(parts):
    english = [f"Sentence {i} of Mr. Smith's long story says that it goes on and on and on." for i in range(20)]
    chinese = [f"第{i}句话说，这个很长的故事还要一直讲下去，讲到大家都睡着为止。" for i in range(20)]
    for language, blank, story in (("en", " ", english), ("zh", "", chinese)):
        pieces = [line.text for line in parts.cleaning.clean(parts.lines.Sentence(language, blank.join(story)))]
        assert blank.join(pieces) == blank.join(story)
        assert all(150 < len(piece) <= 300 and piece[-1] in ".。" for piece in pieces[:-1])
    assert cleaned(parts, " ".join(english), "".join(chinese)) == list(zip(english, chinese, strict=True))
    assert cleaned(parts, " ".join(english), "".join(chinese[1:])) == []
    endless = "and on " * 50
    assert list(parts.cleaning.clean(parts.lines.Sentence("en", f"It goes {endless}"))) == []


@pytest.mark.parametrize("chinese", ["圖書館今天關門", "It is closed today", "今天 it is closed", "今日は休みです"])
def test_a_chinese_side_that_is_not_in_simplified_chinese_is_dropped(parts, chinese):
    assert cleaned(parts, *TODAY) == [TODAY]
    assert cleaned(parts, TODAY[0], chinese) == []


@pytest.mark.parametrize("english", ["今天图书馆关门", "Sie ist geſchloſſen", "Go on 1 + 2 + 3", "CLOSED TODAY"])
def test_an_english_side_that_is_not_in_english_is_dropped(parts, english):
    assert cleaned(parts, english, TODAY[1]) == []


def test_a_long_translation_that_says_more_is_dropped(parts):
    assert cleaned(parts, " ".join([TODAY[0]] * 6), "，".join([TODAY[1]] * 6)) != []
    assert cleaned(parts, TODAY[0], "，".join([TODAY[1]] * 6)) == []
