"""The check of the built HTML finds what a strict Sphinx build lets pass."""

from pathlib import Path

import pytest

from book.check_links import problems


def site(folder: Path, body: str) -> Path:
    """Two pages and an image; `body` is in the first page."""
    (folder / "sub").mkdir()
    (folder / "index.html").write_text(f"<html><body>{body}</body></html>")
    other = '<h1 id="höhe">a</h1><a href="../">up</a>'
    (folder / "sub" / "other page.html").write_text(other, encoding="utf-8")
    (folder / "dot.png").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    "body",
    [
        '<a href="sub/other%20page.html#h%C3%B6he">a</a>',
        '<a href="#here">a</a><p id="here"></p>',
        '<a href="/sub/other%20page.html?x=1">a</a>',
        '<a href="https://example.org/gone">a</a><a href="mailto:a@b.c">a</a>',
        '<img src="dot.png" alt="A dot.">',
        '<img src="data:image/png;base64,AA==" alt="A dot.">',
        '<img src="dot.png" alt="" role="presentation">',
        '<link rel="next" href="sub/other%20page.html">',
    ],
)
def test_sound_pages_pass(tmp_path: Path, body: str):
    """No false alarm: escapes, anchors, other hosts as links, decoration."""
    assert problems(site(tmp_path, body)) == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="gone.html">a</a>', "gone.html does not exist"),
        ('<a href="sub/">a</a>', "sub/ does not exist"),
        ('<a href="#gone">a</a>', "#gone names a place that is not on that page"),
        ('<a href="sub/other%20page.html#gone">a</a>', "names a place that is not on that page"),
        ('<img src="gone.png" alt="A dot.">', "gone.png does not exist"),
        ('<img src="dot.png">', "the image dot.png has no alternative text"),
        ('<img src="dot.png" alt="  ">', "the image dot.png has no alternative text"),
        ('<script src="https://cdn.example.org/a.js"></script>', "is loaded from another host"),
        ('<link rel="stylesheet" href="//cdn.example.org/a.css">', "is loaded from another host"),
        ('<link rel="stylesheet" href="gone.css">', "gone.css does not exist"),
        ('<img src="https://example.org/a.png" alt="A dot.">', "is loaded from another host"),
    ],
)
def test_each_kind_of_fault_is_found(tmp_path: Path, body: str, fault: str):
    """One fault on a page is one sentence that names the page and the address."""
    (found,) = problems(site(tmp_path, body))
    assert found.startswith("index.html: ") and found.endswith(fault)


def test_nothing_to_check_is_a_fault(tmp_path: Path):
    """A build that wrote no page does not pass."""
    assert "build the book first" in problems(tmp_path)[0]
