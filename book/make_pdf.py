"""Prints the built book into one PDF, page by page in the order of its contents.

    python book/make_pdf.py _build/html _build/book.pdf

Chromium or Chrome prints each page (the environment variable CHROMIUM names another one), pypdf
joins them, with an outline. Links between pages are dropped: they hold addresses of this machine.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from pypdf import PdfReader, PdfWriter

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = "--headless --no-sandbox --disable-gpu --no-first-run --no-pdf-header-footer"


def contents(toc: Path) -> list[str]:
    """The book's pages in reading order, from _toc.yml."""
    found = yaml.safe_load(toc.read_text(encoding="utf-8"))
    return [found["root"], *(c["file"] for part in found["parts"] for c in part["chapters"])]


def print_page(browser: str, page: Path, target: Path) -> None:
    """One page of the book as a PDF of its own; waits until its formulas are set.

    Raises:
        RuntimeError: the browser wrote no file.
    """
    command = [browser, *OPTIONS.split(), "--virtual-time-budget=15000"]
    command += [f"--user-data-dir={target.parent / 'profile'}", f"--print-to-pdf={target}"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=300)
    if not target.is_file():
        raise RuntimeError(f"{browser} did not print {page}: {done.stderr[-500:]}")


def append(writer: PdfWriter, pdf: Path, title: str) -> None:
    """Adds a printed page, under its title, without links to files."""
    first = len(writer.pages)
    writer.append(PdfReader(pdf), outline_item=title, import_outline=False)
    for sheet in writer.pages[first:]:
        for annotation in sheet.get("/Annots") or []:
            link = annotation.get_object()
            if str((link.get("/A") or {}).get("/URI", "")).startswith("file:"):
                del link["/A"]


def main(site: Path, target: Path) -> None:
    browser = next(filter(shutil.which, (os.environ.get("CHROMIUM", ""), *BROWSERS)), None)
    if not browser or not (site / "index.html").is_file():
        sys.exit("Build the book first, and install Chromium or Chrome (or set CHROMIUM).")
    writer, pages = PdfWriter(), contents(Path(__file__).parents[1] / "_toc.yml")
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(pages):
            page, pdf = site / f"{name}.html", Path(scratch, f"{number}.pdf")
            print_page(browser, page, pdf)
            title = page.read_text(encoding="utf-8").partition("<title>")[2]
            append(writer, pdf, title.partition(" &#8212; ")[0].strip())
    writer.compress_identical_objects()
    writer.write(target)
    print(f"{len(writer.pages)} sheets of {len(pages)} pages are in {target}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
