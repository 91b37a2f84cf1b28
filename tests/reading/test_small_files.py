"""One peculiarity of a format in each file: what is read of it, and where it stands."""

from __future__ import annotations

import made_files
import pytest
from documents import document_of, sections

# Case: name and content of a file, and its sections; None where all that counts is that no word is lost.
CASES = {
    "paragraphs of text keep their lines": (
        "a.txt", "\n\n one\ntwo \n \t\n\u3000三\r\n四\r\n",
        [(3, (), "one\ntwo"), (6, (), "三\n四")],
    ),
    "a Setext heading, and markup in a heading": (
        "a.md", "The *big* `plan`\n===\n\ntext\n\n### [deep](http://x)\nmore",
        [(1, ("The big plan",), "The *big* `plan`\n==="), (4, ("The big plan",), "text"),
         (6, ("The big plan", "deep"), "### [deep](http://x)"), (7, ("The big plan", "deep"), "more")],
    ),
    "a heading in a fence is none": ("a.md", "```\n# no\n```\n", [(1, (), "```\n# no\n```")]),
    "a link's definition is not lost": (
        "a.md", "# A\n\n[x]: http://example.com 'the place'\n",
        [(1, ("A",), "# A"), (3, ("A",), "[x]: http://example.com 'the place'")],
    ),
    "titles over and under": (
        "a.rst", "=====\nTitle\n=====\n\nIntro.\n\n标题二\n------\n\n.. note::\n\n   Beware.\n",
        [(1, ("Title",), "=====\nTitle\n====="), (5, ("Title",), "Intro."),
         (7, ("Title", "标题二"), "标题二\n------"), (10, ("Title", "标题二"), ".. note::"),
         (12, ("Title", "标题二"), "Beware.")],
    ),
    "broken markup is text": ("a.rst", "A\n=\n\n**open `x\n\n.. nothing:: x\n   :y\n\nB\n~~~~\n-\n", None),
    "a saved note": ("a.html", "<p>Buy milk.", [(1, (), "Buy milk.")]),
    "a note in what looks like furniture": ("a.html", "<nav>Buy milk.</nav>", [(1, (), "Buy milk.")]),
    "a page without a heading is under its title": (
        "a.html", "<title>Shopping</title><p>Milk<br>and <b>bread</b>.</p>",
        [(None, ("Shopping",), "Shopping"), (1, ("Shopping",), "Milk\nand bread.")],
    ),
    "code in a page keeps its lines": (
        "a.html", "<p>So:</p>\n<pre>def f():\n    pass</pre>",
        [(1, (), "So:"), (2, (), "def f():\n    pass")],
    ),
    "lists in lists, and an empty item": (
        "a.html", "<ul><li>a<ul><li>b</ul><li><p>c</p><li></ul><p>d",
        [(1, (), "- a\n- b\n- c"), (1, (), "d")],
    ),
    "a line break inside Chinese is no space": ("a.html", "<p>会议室\n  已经预订</p>", [(1, (), "会议室已经预订")]),
    "a table that lays out a page": (
        "a.html", "<table><tr><td><h1>A</h1><p>one</p></td><td><p>two</p></td></tr></table>",
        [(1, ("A",), "A"), (1, ("A",), "one"), (1, ("A",), "two")],
    ),
    "semicolons, quotes and a value of two lines": (
        "a.csv", 'name;note\nAnna;"likes;\ntea"\n\nBob;\nCid;x;y\n',
        [(1, (), "name; note"), (2, (), "name: Anna; note: likes;\ntea"), (5, (), "name: Bob"),
         (6, (), "name: Cid; note: x; y")],
    ),
    "a column of sentences": (
        "a.csv", "said\nYes, of course\nNo\nWell, it is, you see, late\n",
        [(1, (), "said"), (2, (), "Yes, of course"), (3, (), "No"), (4, (), "Well, it is, you see, late")],
    ),
    "the line that Excel writes first": (
        "a.csv", "sep=;\r\nname;note\r\nAnna, Ben;tea\r\n",
        [(2, (), "name; note"), (3, (), "name: Anna, Ben; note: tea")],
    ),
    "a lone quote between tabs": (
        "a.tsv", 'a\tb\nx\t"He said\ny\t2\n', [(1, (), "a; b"), (2, (), 'a: x; b: "He said'), (3, (), "a: y; b: 2")],
    ),
    "a value of two lines between tabs": (
        "a.tsv", 'a\tb\nx\t"two\nlines"\ny\t2\n',
        [(1, (), "a; b"), (2, (), "a: x; b: two\nlines"), (4, (), "a: y; b: 2")],
    ),
    "a table without names": ("a.tsv", "1\tlamp\n2\trope\n", [(1, (), "1; lamp"), (2, (), "2; rope")]),
    "strings deep in a record": (
        "a.jsonl", '{"a": {"b": ["x", "y"], "n": 1}, "c": " "}\nno json\n"z"\n',
        [(1, (), "a.b: x\na.b: y"), (2, (), "no json"), (3, (), "z")],
    ),
    "half characters, which no embedder takes": (
        "a.jsonl", r'{"pair": "\ud83d\ude00", "lone": "a\ud83db"}', [(1, (), "pair: 😀\nlone: a\ufffdb")],
    ),
    "half a character in a heading": (
        "a.ipynb", r'{"cells": [{"cell_type": "markdown", "source": "# A\ud800\n\ntext"}]}',
        [(1, ("A\ufffd",), "# A\ufffd"), (1, ("A\ufffd",), "text")],
    ),
    "a brace language": (
        "a.java",
        "package x;\n\n/** Doc. */\npublic class Car {\n    int n;\n\n    // go\n    void go() {\n        n++;\n"
        "    }\n    void stop() {\n    }\n}\n",
        [(1, (), "package x;"), (3, (), "/** Doc. */\npublic class Car {"), (5, ("public class Car",), "int n;"),
         (7, ("public class Car",), "// go\n    void go() {\n        n++;\n    }"),
         (11, ("public class Car",), "void stop() {\n    }\n}")],
    ),
    "functions without a blank line between them": (
        "a.go", "func a() {\n\treturn\n}\nfunc b() {\n}\n",
        [(1, (), "func a() {\n\treturn\n}"), (4, (), "func b() {\n}")],
    ),
    "a file without a suffix": ("Makefile", "all:\n\techo hi\n", [(1, (), "all:\n\techo hi")]),
    "a name in capitals": ("A.MD", "# A\n", [(1, ("A",), "# A")]),
    "nothing": ("a.txt", "", []),
    "white space": ("a.md", " \n\u3000\n", []),
    "an empty Word document": ("a.docx", made_files.word(lambda document: None), []),
    "a PDF in Chinese": ("a.pdf", made_files.pdf(["第三季度预算复盘"], chinese=True), [(1, (), "第三季度预算复盘")]),
    "bullets of a symbol font, and a picture": (
        "a.rtf", rb"{\rtf1\ansi {\pict " + b"00ff" * 50_000 + rb"}{\f1 \u61623?}\tab first\par \bullet  second\par}",
        [(None, (), "- first"), (None, (), "- second")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected"), CASES.values(), ids=CASES)
def test_a_small_file_is_read_section_by_section(name, content, expected):
    document = document_of(name, content)
    if expected is None:
        assert "".join(document.text.split()) == "".join(content.split())
    else:
        assert sections(document) == expected


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-128", "AES-256"])
def test_a_pdf_encrypted_without_a_password_opens(algorithm):
    assert document_of("a.pdf", made_files.encrypted_pdf("open to all", "", algorithm)).text == "open to all"
