"""Files of every kind we read, made by the libraries people make them with, sound ones and hostile ones.

Knows nothing of our readers. Each function gives a file's bytes; `folder` writes one of each kind.
"""

from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from pathlib import Path

import docx
import nbformat
import odfdo
import openpyxl
import pptx
from PIL import Image
from pptx.util import Inches
from pypdf import PdfReader, PdfWriter
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

CONTAINER = """<?xml version="1.0"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/>
</rootfiles></container>"""


def pdf(pages: Sequence[str], titles: Sequence[str] = (), chinese: bool = False) -> bytes:
    """A page for each text, a line for each of its lines; `titles` are the outline's entry for each page."""
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=A4, invariant=True)
    if chinese:
        pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    for number, page in enumerate(pages):
        canvas.setFont("STSong-Light" if chinese else "Helvetica", 11)
        if titles:
            canvas.bookmarkPage(str(number))
            canvas.addOutlineEntry(titles[number], str(number))
        for line, words in enumerate(page.split("\n")):
            canvas.drawString(72, 770 - 16 * line, words)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def saved(save: Callable[[io.BytesIO], object]) -> bytes:
    """What a library's `save` writes into a file."""
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def encrypted_pdf(text: str, password: str, algorithm: str = "AES-256") -> bytes:
    """`password` may be empty: opened by everybody, only printing is forbidden."""
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf([text]))))
    writer.encrypt(password, owner_password="owner", algorithm=algorithm)
    return saved(writer.write)


def scanned_pdf(n_pages: int = 2) -> bytes:
    """Pages that are pictures."""
    file, picture = io.BytesIO(), ImageReader(Image.new("L", (60, 80), 200))
    canvas = Canvas(file, pagesize=A4, invariant=True)
    for _ in range(n_pages):
        canvas.drawImage(picture, 0, 0, *A4)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def joined(*pdfs: bytes) -> bytes:
    """The pages of several PDFs in one."""
    writer = PdfWriter()
    for data in pdfs:
        writer.append(io.BytesIO(data))
    return saved(writer.write)


def word(fill: Callable[[docx.document.Document], None]) -> bytes:
    """A Word document that `fill` has written into."""
    document = docx.Document()
    fill(document)
    return saved(document.save)


def minutes(document: docx.document.Document) -> None:
    """Headings, paragraphs, a list and a table, in this order."""
    document.add_heading("Minutes of the board", 0)
    document.add_paragraph("The board met in Rotterdam on 3 May.")
    document.add_heading("Budget", 1)
    document.add_paragraph("The harbour crane is leased for two more years.")
    document.add_paragraph("ask for three offers", style="List Bullet")
    document.add_paragraph("compare the leases", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for at, text in enumerate(["Item", "Cost", "Crane", "40,000"]):
        table.cell(at // 2, at % 2).text = text
    document.add_heading("人事", 2)
    document.add_paragraph("决定在九月之前招聘两名数据分析师。")


def slides() -> bytes:
    """Two slides: one with a title, points, a table and notes, one without a title."""
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "Launch plan"
    slide.placeholders[1].text = "Beta opens in March\nPrices stay as they are"
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(4), Inches(6), Inches(1)).table
    for at, text in enumerate(["Market", "Start", "Japan", "June"]):
        table.cell(at // 2, at % 2).text = text
    slide.notes_slide.notes_text_frame.text = "Mention the waiting list of 900 people."
    untitled = presentation.slides.add_slide(presentation.slide_layouts[6])
    box = untitled.shapes.add_textbox(Inches(1), Inches(1), Inches(5), Inches(1))
    box.text_frame.text = "第二季度的重点是海外市场。"
    return saved(presentation.save)


def workbook() -> bytes:
    """A sheet with a title above its header, an empty one, and one of a single column."""
    made = openpyxl.Workbook()
    sheet = made.active
    sheet.title = "费用"
    for row in (["Costs of 2026"], ["部门", "euros", "paid"], ["市场部", 1200.0, datetime.datetime(2026, 3, 1)]):
        sheet.append(row)
    sheet.append([None, None, None])
    sheet.append(["Research", 3.5, datetime.datetime(2026, 3, 2, 9, 30)])
    made.create_sheet("empty")
    made.create_sheet("Notes").append(["paid by the lighthouse fund"])
    return saved(made.save)


def opendocument() -> bytes:
    """Headings, a footnote, a list, a table, and what a reviewer deleted and remarked."""
    made = odfdo.Document("text")
    body = made.body
    body.clear()
    body.append(odfdo.Paragraph("Ferry guide", style="Title"))
    body.append(odfdo.Header(1, "Timetable"))
    line = odfdo.Paragraph("The ferry leaves  at seven\tdaily.")
    line.insert_note(after="seven", note_id="n1", citation="1", body="Eight in winter.")
    body.append(line)
    body.append(odfdo.List(["buy a ticket", "queue at pier two"]))
    table = odfdo.Table("T", width=2, height=2)
    table.set_values([["Harbour", "Minutes"], ["Texel", 20]])
    body.append(table)
    body.append(odfdo.Header(2, "票价"))
    price = odfdo.Paragraph("成人票十二元。")
    price.insert_annotation(after="成人票", body="too cheap?", creator="Ann")
    body.append(price)
    return saved(made.save)


RICH_TEXT = (
    rb"{\rtf1\ansi\ansicpg936\deff0{\fonttbl{\f0\fnil\fcharset134 SimSun;}}{\info{\title not shown}}" + b"\n"
    rb"\pard The \b orchard\b0  has forty trees.\par" + b"\n"
    rb"\pard \'c6\'bb\'b9\'fb\'cf\'c2\'b8\'f6\'d4\'c2\'b2\'c9\'ca\'d5\'a1\'a3\par" + b"\n"
    rb"\trowd\cellx1000\cellx2000\intbl Apple\cell 30 trees\cell\row" + b"\n"
    rb"\trowd\cellx1000\cellx2000\intbl Pear\cell 10 trees\cell\row" + b"\n"
    rb"{\pict\pngblip " + b"89504e470d0a1a0a" * 100 + rb"}\pard Caf\u233?.\par}"
)  # fmt: skip


def mail() -> bytes:
    """Plain text beside the same as a page, an attachment, and another mail that was attached."""
    inner = EmailMessage()
    inner["Subject"], inner["From"] = "Quarry", "Tom <tom@example.com>"
    inner.set_content("The quarry closes in May.\n")
    made = EmailMessage()
    made["Subject"] = "关于采石场"
    made["From"], made["To"] = "李雷 <li@example.com>", "Mia <mia@example.com>"
    made["Date"] = datetime.datetime(2026, 3, 1, 9, 0, tzinfo=datetime.UTC)
    made.set_content("采石场五月关闭。\n\nSee below.\n", charset="gb2312")
    made.add_alternative("<p>the page nobody needs</p>", subtype="html")
    made.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="地图.png")
    made.add_attachment(inner)
    return made.as_bytes()


def notebook() -> bytes:
    """A Markdown cell with a heading, a code cell with an output, and text after it."""
    cells = [
        nbformat.v4.new_markdown_cell("# Rainfall\n\nWe look at ten years of rain in Bergen."),
        nbformat.v4.new_code_cell(
            "import statistics\nmean = statistics.mean(rain)",
            outputs=[nbformat.v4.new_output("stream", text="an output nobody wrote")],
        ),
        nbformat.v4.new_markdown_cell("The wettest month is 十月。"),
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells)).encode("utf-8")


def zipped(parts: dict[str, bytes | str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def book(chapters: Sequence[tuple[str, str]], extra: dict[str, bytes | str] | None = None) -> bytes:
    """An EPUB 3 of titles and bodies of HTML; the titles stand in its table of contents alone."""
    items, order, links, parts = [], [], [], {}
    for number, (title, body) in enumerate(chapters):
        items.append(f'<item id="c{number}" href="c%20{number}.xhtml" media-type="application/xhtml+xml"/>')
        order.append(f'<itemref idref="c{number}"/>')
        links.append(f'<li><a href="c%20{number}.xhtml#top">{title}</a></li>')
        parts[f"OEBPS/c {number}.xhtml"] = (
            f'<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title>'
            f"</head><body>{body}</body></html>"
        )
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><manifest>'
        '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
        # The order of reading is the spine's, not the manifest's.
        f'{"".join(reversed(items))}</manifest><spine><itemref idref="nav"/>{"".join(order)}</spine></package>'
    )
    nav = f'<html xmlns="http://www.w3.org/1999/xhtml"><body><nav><ol>{"".join(links)}</ol></nav></body></html>'
    first: dict[str, bytes | str] = {"mimetype": "application/epub+zip", "META-INF/container.xml": CONTAINER}
    return zipped(first | {"OEBPS/book.opf": package, "OEBPS/nav.xhtml": nav} | parts | (extra or {}))


PAGE = """<!DOCTYPE html><html><head><meta charset="utf-8"><title>Sourdough – The Bread Page</title>
<style>p {color: red}</style></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/shop">Shop</a></li></ul></nav>
<div class="cookie-banner"><p>We use cookies. <button>Accept</button></p></div>
<main><h1>Sourdough</h1>
<p>A starter needs flour, water
and a week of patience.</p>
<h2>Baking</h2><ul><li>heat the oven to 250 degrees</li><li>bake for forty minutes</li></ul>
<table><tr><th>Flour</th><th>Water</th></tr><tr><td>500 g</td><td>350 g</td></tr></table>
<script>var tracking = "on";</script></main>
<footer>Copyright nobody</footer></body></html>"""

MARKDOWN = """---
title: Harbour notes
---

# Harbour

The pilot boat leaves at dawn.

## Tides

- high water at 06:12
- low water at 12:30

| Day | Height |
|-----|--------|
| Mon | 3.2 m  |

```python
def height(day): return 3.2
```

## 潮汐

涨潮时港口的水深是十二米。
"""

RST = """Beekeeping
==========

Bees fly when it is warmer than ten degrees.

Winter
------

Feed them sugar in October.
"""

CODE = '''"""Sums."""

import math


class Circle:
    """Round."""

    def area(self, radius):
        return math.pi * radius**2

    def edge(self, radius):
        return 2 * math.pi * radius


@cached
def golden():
    return (1 + math.sqrt(5)) / 2
'''

PAGES = ("The turbine stood still for nine days.", "Repairs cost 12,000 euros.")
CHAPTERS = (("The Storm", "<p>The lamp went out.</p>"), ("Morning", "<h1>Dawn</h1><p>Gulls cried.</p>"))

# Name: how it is made. Each has words in it that no other has.
FILES: dict[str, Callable[[], bytes]] = {
    "letter.txt": lambda: b"Dear Anna,\n\nthe piano will be tuned on Friday.\n",
    "便条.txt": lambda: "请在周五之前把合同寄给王经理。\n另外，会议室已经预订好了。\n".encode("gb18030"),
    "harbour.md": MARKDOWN.encode,
    "bees.rst": RST.encode,
    "bread.html": PAGE.encode,
    "report.pdf": lambda: pdf(PAGES, ["Outage", "Costs"]),
    "minutes.docx": lambda: word(minutes),
    "launch.pptx": slides,
    "costs.xlsx": workbook,
    "ferry.odt": opendocument,
    "orchard.rtf": lambda: RICH_TEXT,
    "quarry.eml": mail,
    "novel.epub": lambda: book(CHAPTERS),
    "rain.ipynb": notebook,
    "stock.csv": lambda: b"name,place\nlantern,cellar\nrope,attic\n",
    "chat.jsonl": lambda: b'{"who": "Mia", "said": "the bus is late"}\n{"who": "Tom", "n": 3}\n',
    "circle.py": CODE.encode,
}  # fmt: skip


def folder(path: Path) -> Path:
    """One file of every kind in a folder."""
    path.mkdir(parents=True, exist_ok=True)
    for name, make in FILES.items():
        (path / name).write_bytes(make())
    return path
