"""Prints the built book into one PDF, page by page in reading order.

    python book/make_pdf.py _build/html _build/book.pdf

Chromium or Chrome prints each page (the environment variable CHROMIUM names another one), pypdf
joins them, with an outline. Links between pages become links within the file; no address of the
machine that made it is left in it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, NameObject

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FIRST_PAGE = "book/index.html"


class Sidebar(HTMLParser):
    """The links of the book's table of contents, which every page has in its sidebar."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.links, self.title = False, [], ""
        self._in_title = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self._in_title = tag == "title"
        if tag == "nav":
            self.inside = "bd-links" in given.get("class", "").split()
        if tag == "a" and self.inside and given.get("href"):
            self.links.append(given["href"])

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False
        if tag == "nav":
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data


def read(page: Path) -> Sidebar:
    parser = Sidebar()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def reading_order(site: Path) -> list[Path]:
    """The book's pages as its sidebar lists them, each once.

    Raises:
        FileNotFoundError: there is no built book.
    """
    first = site / FIRST_PAGE
    if not first.is_file():
        raise FileNotFoundError(f"There is no {first}: build the book first.")
    pages = [first]
    for link in read(first).links:
        parts = urlsplit(link)
        if not parts.netloc and parts.path:
            pages.append((first.parent / unquote(parts.path)).resolve())
    return list(dict.fromkeys(page.resolve() for page in pages))


def browser() -> str:
    """The path of Chromium or Chrome.

    Raises:
        FileNotFoundError: there is none.
    """
    named = [os.environ["CHROMIUM"]] if "CHROMIUM" in os.environ else BROWSERS
    for name in named:
        if path := shutil.which(name):
            return path
    raise FileNotFoundError(
        f"No browser called {' or '.join(named)} was found: install Chromium, or set CHROMIUM."
    )


def print_page(program: str, page: Path, target: Path, profile: Path) -> None:
    """One page of the book as a PDF of its own; waits until its formulas are set.

    Raises:
        RuntimeError: the browser wrote no file.
    """
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=15000"]
    command += ["--no-pdf-header-footer", f"--print-to-pdf={target}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if not target.is_file():
        raise RuntimeError(f"{program} did not print {page}: {done.stderr[-500:]}")


def joined(parts: dict[Path, Path]) -> PdfWriter:
    """All PDFs in one, from built page -> its PDF; with an outline and links within."""
    writer, starts = PdfWriter(), {}
    for page, pdf in parts.items():
        starts[page] = len(writer.pages)
        title = read(page).title.split(" — ")[0].strip()
        writer.append(PdfReader(pdf), outline_item=title, import_outline=False)
    for sheet in writer.pages:
        for annotation in sheet.get("/Annots") or []:
            point_within(annotation.get_object(), starts, writer)
    return writer


def point_within(link: dict, starts: dict[Path, int], writer: PdfWriter) -> None:
    """Turns a link to a file of the built book into one to its first sheet, or into no link."""
    address = str((link.get("/A") or {}).get("/URI", ""))
    if not address.startswith("file:"):
        return
    del link[NameObject("/A")]
    start = starts.get(Path(unquote(urlsplit(address).path)))
    if start is not None:
        sheet = writer.pages[start].indirect_reference
        link[NameObject("/Dest")] = ArrayObject([sheet, NameObject("/Fit")])


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("Usage: python book/make_pdf.py SITE FILE.pdf", file=sys.stderr)
        return 2
    site, target = (Path(argument).resolve() for argument in arguments)
    try:
        program, pages = browser(), reading_order(site)
        with tempfile.TemporaryDirectory() as scratch:
            parts = {page: Path(scratch, f"{i}.pdf") for i, page in enumerate(pages)}
            for page, part in parts.items():
                print_page(program, page, part, Path(scratch, "profile"))
            writer = joined(parts)
            writer.add_metadata({"/Title": read(site / FIRST_PAGE).title.split(" — ")[0].strip()})
            writer.compress_identical_objects()
            writer.write(target)
    except (FileNotFoundError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(writer.pages)} sheets of {len(pages)} pages are in {target}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
