"""What reading a file of each kind gives: its text, its headings, and where each stretch of it stands."""

from __future__ import annotations

import sys

import docx
import made_files
import nbformat
import pptx
import pytest
from documents import document_of, section_texts, sections
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from docx.oxml import parse_xml

from q3e_local.reading.kinds import SUFFIXES, kind_by_name
from q3e_local.reading.office import CONVERTED

OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


FERRY = ("Ferry guide", "Timetable")
HARBOUR, TIDES, CHINESE = ("Harbour",), ("Harbour", "Tides"), ("Harbour", "潮汐")
EXPECTED = {
    "letter.txt": [(1, (), "Dear Anna,"), (3, (), "the piano will be tuned on Friday.")],
    "便条.txt": [(1, (), "请在周五之前把合同寄给王经理。\n另外，会议室已经预订好了。")],
    "harbour.md": [
        (1, (), "---\ntitle: Harbour notes\n---"),
        (5, HARBOUR, "# Harbour"), (7, HARBOUR, "The pilot boat leaves at dawn."),
        (9, TIDES, "## Tides"), (11, TIDES, "- high water at 06:12\n- low water at 12:30"),
        (14, TIDES, "| Day | Height |\n|-----|--------|\n| Mon | 3.2 m  |"),
        (18, TIDES, "```python\ndef height(day): return 3.2\n```"),
        (22, CHINESE, "## 潮汐"), (24, CHINESE, "涨潮时港口的水深是十二米。"),
    ],
    "bees.rst": [
        (1, ("Beekeeping",), "Beekeeping\n=========="),
        (4, ("Beekeeping",), "Bees fly when it is warmer than ten degrees."),
        (6, ("Beekeeping", "Winter"), "Winter\n------"), (9, ("Beekeeping", "Winter"), "Feed them sugar in October."),
    ],
    "bread.html": [
        (5, ("Sourdough",), "Sourdough"), (6, ("Sourdough",), "A starter needs flour, water and a week of patience."),
        (8, ("Sourdough", "Baking"), "Baking"),
        (8, ("Sourdough", "Baking"), "- heat the oven to 250 degrees\n- bake for forty minutes"),
        (9, ("Sourdough", "Baking"), "Flour | Water\n500 g | 350 g"),
    ],
    "report.pdf": [
        (1, ("Outage",), "The turbine stood still for nine days."), (2, ("Costs",), "Repairs cost 12,000 euros."),
    ],
    "minutes.docx": [
        (None, ("Minutes of the board",), "Minutes of the board"),
        (None, ("Minutes of the board",), "The board met in Rotterdam on 3 May."),
        (None, ("Minutes of the board", "Budget"), "Budget"),
        (None, ("Minutes of the board", "Budget"), "The harbour crane is leased for two more years."),
        (None, ("Minutes of the board", "Budget"), "- ask for three offers\n- compare the leases"),
        (None, ("Minutes of the board", "Budget"), "Item | Cost\nCrane | 40,000"),
        (None, ("Minutes of the board", "Budget", "人事"), "人事"),
        (None, ("Minutes of the board", "Budget", "人事"), "决定在九月之前招聘两名数据分析师。"),
    ],
    "launch.pptx": [
        (1, ("Launch plan",), "Launch plan"),
        (1, ("Launch plan",), "Beta opens in March\nPrices stay as they are\nMarket | Start\nJapan | June"),
        (1, ("Launch plan",), "Mention the waiting list of 900 people."),
        (2, (), "第二季度的重点是海外市场。"),
    ],
    "costs.xlsx": [
        (None, ("费用",), "费用"), (None, ("费用",), "Costs of 2026"), (None, ("费用",), "部门; euros; paid"),
        (None, ("费用",), "部门: 市场部; euros: 1200; paid: 2026-03-01"),
        (None, ("费用",), "部门: Research; euros: 3.5; paid: 2026-03-02 09:30:00"),
        (None, ("Notes",), "Notes"), (None, ("Notes",), "paid by the lighthouse fund"),
    ],
    "ferry.odt": [
        (None, ("Ferry guide",), "Ferry guide"), (None, FERRY, "Timetable"),
        (None, FERRY, "The ferry leaves  at seven\tdaily."), (None, FERRY, "- buy a ticket\n- queue at pier two"),
        (None, FERRY, "Harbour | Minutes\nTexel | 20"), (None, (*FERRY, "票价"), "票价"),
        (None, (*FERRY, "票价"), "成人票十二元。"), (None, (), "Eight in winter."),
    ],
    "orchard.rtf": [
        (None, (), "The orchard has forty trees."), (None, (), "苹果下个月采收。"),
        (None, (), "Apple | 30 trees\nPear | 10 trees"), (None, (), "Café."),
    ],
    "quarry.eml": [
        (None, ("关于采石场",), "关于采石场"),
        (None, ("关于采石场",), "From: 李雷 <li@example.com>\nTo: Mia <mia@example.com>\n"
         "Date: Sun, 01 Mar 2026 09:00:00 +0000"),
        (None, ("关于采石场",), "采石场五月关闭。"), (None, ("关于采石场",), "See below."),
        (None, ("关于采石场", "Quarry"), "Quarry"), (None, ("关于采石场", "Quarry"), "From: Tom <tom@example.com>"),
        (None, ("关于采石场", "Quarry"), "The quarry closes in May."),
        (None, ("关于采石场",), "Attachments: 地图.png"),
    ],
    "novel.epub": [
        (None, ("The Storm",), "The Storm"), (None, ("The Storm",), "The lamp went out."),
        (None, ("Dawn",), "Dawn"), (None, ("Dawn",), "Gulls cried."),
    ],
    "rain.ipynb": [
        (1, ("Rainfall",), "# Rainfall"), (1, ("Rainfall",), "We look at ten years of rain in Bergen."),
        (2, ("Rainfall",), "import statistics\nmean = statistics.mean(rain)"),
        (3, ("Rainfall",), "The wettest month is 十月。"),
    ],
    "stock.csv": [
        (1, (), "name; place"), (2, (), "name: lantern; place: cellar"), (3, (), "name: rope; place: attic"),
    ],
    "chat.jsonl": [(1, (), "who: Mia\nsaid: the bus is late"), (2, (), "who: Tom")],
    "circle.py": [
        (1, (), '"""Sums."""'), (3, (), "import math"), (6, (), "class Circle:"),
        (7, ("class Circle",), '"""Round."""'),
        (9, ("class Circle",), "def area(self, radius):\n        return math.pi * radius**2"),
        (12, ("class Circle",), "def edge(self, radius):\n        return 2 * math.pi * radius"),
        (16, (), "@cached\ndef golden():\n    return (1 + math.sqrt(5)) / 2"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", made_files.FILES)
def test_every_kind_is_read_with_its_structure(name):
    document = document_of(name, made_files.FILES[name]())
    assert sections(document) == EXPECTED[name]
    assert document.kind == kind_by_name(name)
    assert document.has_lines == (document.kind in ("text", "markdown", "rst", "code"))
    for section, text in zip(document.sections, section_texts(document), strict=True):
        assert not section.is_heading or text.strip("#=- \n").startswith(section.headings[-1])


def test_there_is_a_file_of_every_kind_here():
    assert set(map(kind_by_name, made_files.FILES)) == set(SUFFIXES) - set(CONVERTED)


def test_restructured_text_does_nothing_that_the_file_asks_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("the secret", encoding="utf-8")
    lines = [".. include:: secret.txt", ".. raw:: html\n   :file: secret.txt", ".. csv-table::\n   :file: secret.txt"]
    document = document_of("a.rst", "A\n=\n\n" + "\n\n".join(lines))
    assert "the secret" not in document.text
    assert document.sections[0].headings == ("A",)


def test_long_lists_and_paragraphs_are_cut_where_they_have_joints():
    items = [f"- item {number} " + "word " * 20 for number in range(40)]
    document = document_of("a.md", "\n".join(items))
    assert section_texts(document) == [item.strip() for item in items]
    lines = [f"第{number}条，内容如下。" * 10 for number in range(40)]
    document = document_of("a.txt", "\n".join(lines))
    assert section_texts(document) == lines


def test_a_long_function_is_cut_at_the_indentation_of_its_body():
    steps = [f"    if case == {number}:\n        return '{'x' * 80}'\n" for number in range(40)]
    document = document_of("a.py", "def choose(case):\n" + "\n".join(steps))
    assert len(document.sections) == 41
    assert {section.headings for section in document.sections[1:]} == {("def choose(case)",)}
    assert [section.line for section in document.sections[:4]] == [1, 2, 5, 8]


def test_word_keeps_insertions_links_and_controls_and_leaves_deletions():
    def fill(document: docx.document.Document) -> None:
        paragraph = document.add_paragraph("The rent is ")
        paragraph._p.append(parse_xml(f"<w:del {W}><w:r><w:delText>800</w:delText></w:r></w:del>"))
        paragraph._p.append(parse_xml(f"<w:ins {W}><w:r><w:t>900</w:t></w:r></w:ins>"))
        paragraph._p.append(parse_xml(f"<w:hyperlink {W}><w:r><w:t> euros</w:t></w:r></w:hyperlink>"))
        control = f"<w:sdt {W}><w:sdtContent><w:p><w:r><w:t>in a control</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        document.element.body.insert(1, parse_xml(control))
        table = document.add_table(rows=1, cols=2)
        table.cell(0, 0).merge(table.cell(0, 1)).text = "merged"
        outer = document.add_table(rows=2, cols=2)
        outer.cell(0, 0).text, outer.cell(1, 1).text = "a", "d"
        outer.cell(0, 1).add_table(rows=1, cols=1).cell(0, 0).text = "inner"
        heading = document.add_paragraph("租赁合同")
        heading.style = document.styles.add_style("标题 1 自定义", 1)
        document.add_paragraph("期限三年。")

    document = document_of("a.docx", made_files.word(fill))
    assert sections(document) == [
        (None, (), "The rent is 900 euros"), (None, (), "in a control"), (None, (), "merged"),
        (None, (), "a | inner\nd"),
        (None, ("租赁合同",), "租赁合同"), (None, ("租赁合同",), "期限三年。"),
    ]  # fmt: skip


def test_word_reads_text_boxes_once_and_footnotes_at_the_end():
    inside = "<w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent>"
    box = (
        f'<w:r {W} xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"><mc:AlternateContent>'
        f"<mc:Choice>{inside}</mc:Choice><mc:Fallback>{inside}</mc:Fallback></mc:AlternateContent></w:r>"
    )
    notes = (
        f'<w:footnotes {W}><w:footnote w:type="separator"><w:p/></w:footnote>'
        "<w:footnote><w:p><w:r><w:t>See page 9.</w:t></w:r></w:p></w:footnote></w:footnotes>"
    )

    def fill(document: docx.document.Document) -> None:
        document.add_paragraph("beside it")._p.append(parse_xml(box))
        content_type = "application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"
        part = Part(PackURI("/word/footnotes.xml"), content_type, notes.encode(), document.part.package)
        document.part.relate_to(part, f"{OFFICE}/footnotes")

    assert sections(document_of("a.docx", made_files.word(fill))) == [
        (None, (), "beside it\nboxed"), (None, (), "See page 9."),
    ]  # fmt: skip


def test_a_book_of_epub_2_has_its_titles_from_the_ncx():
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="2.0"><manifest>'
        '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
        '<item id="a" href="text/a.html" media-type="application/xhtml+xml"/></manifest>'
        '<spine toc="ncx"><itemref idref="a"/></spine></package>'
    )
    ncx = (
        '<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>第一章</text></navLabel>'
        '<content src="text/a.html#x"/></navPoint></navMap></ncx>'
    )
    chapter = '<?xml version="1.0" encoding="gbk"?><html><body><p>下雨了。</p></body></html>'.encode("gbk")
    parts = {"META-INF/container.xml": made_files.CONTAINER, "OEBPS/book.opf": package, "OEBPS/toc.ncx": ncx}
    document = document_of("a.epub", made_files.zipped(parts | {"OEBPS/text/a.html": chapter}))
    assert sections(document) == [(None, ("第一章",), "第一章"), (None, ("第一章",), "下雨了。")]


def test_slides_in_groups_are_read():
    presentation = pptx.Presentation()
    group = presentation.slides.add_slide(presentation.slide_layouts[6]).shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 99, 99).text_frame.text = "inside a group"
    document = document_of("a.pptx", made_files.saved(presentation.save))
    assert sections(document) == [(1, (), "inside a group")]


def test_a_notebook_of_the_third_format_is_read():
    cells = [
        nbformat.v3.new_heading_cell("Old"),
        nbformat.v3.new_code_cell("x = 1"),
        nbformat.v3.new_text_cell("html", "<i>"),
    ]
    old = nbformat.v3.new_notebook(worksheets=[nbformat.v3.new_worksheet(cells=cells)])
    document = document_of("a.ipynb", nbformat.v3.writes_json(old))
    assert sections(document) == [(1, ("Old",), "Old"), (2, ("Old",), "x = 1"), (3, ("Old",), "<i>")]


def test_pdf_pages_are_cut_at_the_titles_of_the_outline_and_words_are_mended():
    page = "end of the story be-\nfore it\nSecond Chapter\nhow it began"
    document = document_of("a.pdf", made_files.pdf(["First", page], ["First", "Second  chapter"]))
    assert sections(document) == [
        (1, ("First",), "First"), (2, ("First",), "end of the story before it"),
        (2, ("Second chapter",), "Second Chapter\nhow it began"),
    ]  # fmt: skip


def test_importing_the_room_loads_no_parser():
    import subprocess

    script = "import sys, q3e_local.reading; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"charset_normalizer", "markdown_it", "docutils", "lxml", "pypdf", "docx", "pptx"} & set(loaded)
