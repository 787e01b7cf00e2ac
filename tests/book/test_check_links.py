"""The check of the built HTML finds what a strict Sphinx build lets pass."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.repository import ROOT


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_links", ROOT / "book" / "check_links.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def site(folder: Path, body: str) -> Path:
    """Two pages and an image; `body` is in the first page."""
    (folder / "sub").mkdir()
    (folder / "index.html").write_text(f"<html><body>{body}</body></html>")
    (folder / "sub" / "other page.html").write_text('<h1 id="höhe">a</h1><a href="../">up</a>')
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
def test_sound_pages_pass(checker: ModuleType, tmp_path: Path, body: str):
    """No false alarm: escapes, anchors, other hosts as links, decoration."""
    assert checker.problems(site(tmp_path, body)) == []


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
def test_each_kind_of_fault_is_found(checker: ModuleType, tmp_path: Path, body: str, fault: str):
    """One fault on a page is one sentence that names the page and the address."""
    (found,) = checker.problems(site(tmp_path, body))
    assert found.startswith("index.html: ") and found.endswith(fault)


def test_a_heavy_page_is_found(checker: ModuleType, tmp_path: Path):
    """HTML and images together, each image once however often it is shown."""
    image = '<img src="dot.png" alt="A dot.">'
    folder = site(tmp_path, 2 * image)
    (folder / "dot.png").write_bytes(bytes(checker.HEAVY - 1000))
    assert checker.problems(folder) == []
    (folder / "dot.png").write_bytes(bytes(checker.HEAVY))
    (found,) = checker.problems(folder)
    assert found == "index.html: with its images it has 3.0 MB, more than 3"


def test_exit_status(checker: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture):
    """0 for a sound site, 1 for faults, 2 where there is nothing to check."""
    assert checker.main([str(tmp_path)]) == 2
    assert "build the book first" in capsys.readouterr().err
    assert checker.main([str(site(tmp_path, ""))]) == 0
    (tmp_path / "dot.html").write_text('<a href="gone">a</a>')
    assert checker.main([str(tmp_path)]) == 1
    assert "dot.html: gone does not exist" in capsys.readouterr().out
