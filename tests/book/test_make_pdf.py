"""The PDF of the book: pages in reading order, an outline, no address of the machine."""

import re
from pathlib import Path

import pypdf
import pytest
from pypdf.annotations import Link

from book.make_pdf import append, contents, main
from tests.repository import ROOT


def test_pages_come_in_the_order_of_the_contents():
    """The first page, then every file of _toc.yml, once."""
    text = (ROOT / "_toc.yml").read_text()
    assert contents(ROOT / "_toc.yml") == re.findall(r"(?:file|root): *(\S+)", text)


def test_no_book_no_pdf(tmp_path: Path):
    """One sentence that says what to do."""
    with pytest.raises(SystemExit, match="Build the book first"):
        main(tmp_path, tmp_path / "x.pdf")


def test_links_to_files_are_dropped(tmp_path: Path):
    """Those to the web stay; each page is in the outline."""
    sheet, web = pypdf.PdfWriter(), "https://example.org/"
    sheet.add_blank_page(100, 100)
    for url in ((tmp_path / "z.html").as_uri(), web):
        sheet.add_annotation(0, Link(rect=(0, 0, 9, 9), url=url))
    sheet.write(tmp_path / "1.pdf")
    writer = pypdf.PdfWriter()
    for title in ("index", "a b"):
        append(writer, tmp_path / "1.pdf", title)
    writer.write(tmp_path / "all.pdf")
    assert tmp_path.as_uri().encode() not in (tmp_path / "all.pdf").read_bytes()
    made = pypdf.PdfReader(tmp_path / "all.pdf")
    outline = [(one.title, made.get_destination_page_number(one)) for one in made.outline]
    assert outline == [("index", 0), ("a b", 1)]
    dropped, kept = (one.get_object() for one in made.pages[1]["/Annots"])
    assert "/A" not in dropped and kept["/A"]["/URI"] == web
