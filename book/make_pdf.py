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
# The budget is for formulas to be set.
OPTIONS = "--headless --no-sandbox --disable-gpu --no-first-run --no-pdf-header-footer "
OPTIONS += "--virtual-time-budget=15000"


def contents(toc: Path) -> list[str]:
    """The book's pages in reading order, from _toc.yml."""
    found = yaml.safe_load(toc.read_text(encoding="utf-8"))
    return [found["root"], *(c["file"] for part in found["parts"] for c in part["chapters"])]


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
    writer = PdfWriter()
    with tempfile.TemporaryDirectory() as scratch:
        command = [browser, *OPTIONS.split(), f"--user-data-dir={scratch}/profile"]
        for name in contents(Path(__file__).parents[1] / "_toc.yml"):
            page, pdf = site / f"{name}.html", Path(scratch, name.replace("/", "-"))
            subprocess.run([*command, f"--print-to-pdf={pdf}", page.as_uri()], check=True)
            title = page.read_text(encoding="utf-8").partition("<title>")[2]
            append(writer, pdf, title.partition(" &#8212; ")[0].strip())
    writer.compress_identical_objects()
    writer.write(target)
    print(f"{len(writer.pages)} sheets are in {target}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
