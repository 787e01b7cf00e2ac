"""The PDF of the book: pages in reading order, links within, an outline."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pypdf
import pytest
from pypdf.annotations import Link

from tests.repository import ROOT


@pytest.fixture(scope="module")
def printer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pdf", ROOT / "book" / "make_pdf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Three pages; the first one's sidebar has them in another order than their names."""
    links = ["#", "z.html", "../notebooks/a%20b.html", "z.html#part", "https://example.org/"]
    sidebar = "".join(f'<a href="{link}">x</a>' for link in links)
    nav = f'<nav class="bd-links bd-docs-nav">{sidebar}</nav>'
    for name in ("book/index", "book/z", "notebooks/a b"):
        path = tmp_path / f"{name}.html"
        path.parent.mkdir(exist_ok=True)
        elsewhere = '<a href="other.html">not in the sidebar</a>'
        path.write_text(f"<title>{path.stem} — Book</title>{nav}{elsewhere}")
    return tmp_path


def test_pages_come_in_the_order_of_the_sidebar(printer: ModuleType, site: Path):
    """Each once, without other hosts and other links."""
    pages = printer.reading_order(site)
    assert [p.name for p in pages] == ["index.html", "z.html", "a b.html"]


def test_no_book_no_pdf(printer: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture):
    """One sentence and exit status 2."""
    assert printer.main([str(tmp_path), str(tmp_path / "x.pdf")]) == 2
    said = capsys.readouterr().err
    assert "build the book first" in said or "install Chromium" in said


def sheet_with_links(path: Path, *addresses: str) -> Path:
    """A PDF of one sheet with links to the addresses."""
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    for address in addresses:
        link = Link(rect=(0, 0, 9, 9), url=address)
        writer.add_annotation(0, link)
    writer.write(path)
    return path


def test_links_between_pages_stay_in_the_file(printer: ModuleType, site: Path, tmp_path: Path):
    """One to a page of the book jumps to its sheet; to another file: none; the web stays."""
    first, second = site / "book" / "index.html", site / "notebooks" / "a b.html"
    web = "https://example.org/"
    parts = {
        first: sheet_with_links(
            tmp_path / "1.pdf", f"{second.as_uri()}#part", (site / "gone.html").as_uri(), web
        ),
        second: sheet_with_links(tmp_path / "2.pdf"),
    }
    printer.joined(parts).write(tmp_path / "all.pdf")
    assert site.as_uri().encode() not in (tmp_path / "all.pdf").read_bytes()
    book = pypdf.PdfReader(tmp_path / "all.pdf")
    assert [(o.title, book.get_destination_page_number(o)) for o in book.outline] == [
        ("index", 0),
        ("a b", 1),
    ]
    inside, gone, outside = (a.get_object() for a in book.pages[0]["/Annots"])
    assert inside["/Dest"][0].get_object() == book.pages[1]
    assert "/A" not in gone and "/Dest" not in gone
    assert outside["/A"]["/URI"] == web
