"""Checks built HTML: every internal link, anchor and image exists, every image has an alternative
text, nothing is loaded from another host, no page is heavy.

    python book/check_links.py _build/html

Sphinx's strict build misses some of this: a figure can be lost between a notebook's outputs and the
page without a warning. Only the standard library is used.
"""

import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches on its own when it opens a page: tag -> attribute.
LOADED = {
    "img": "src",
    "script": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
    "object": "data",
}
# A <link> with one of these is fetched as well; others, such as next and prev, only name a page.
LOADED_RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "prefetch"}

# The HTML and the images of a page together; styles, fonts and MathJax are the same for all pages.
HEAVY = 3_000_000
# How much is on this one is the reader's own affair.
OWN_RUNS = "book/your_runs.html"


@dataclass
class Page(HTMLParser):
    """What one HTML file refers to, and what can be referred to in it."""

    anchors: set[str] = field(default_factory=set)  # ids and names
    links: list[str] = field(default_factory=list)  # addresses a reader may follow
    loads: list[str] = field(default_factory=list)  # addresses a browser fetches
    images: set[str] = field(default_factory=set)  # those of them that are images
    without_alt: list[str] = field(default_factory=list)  # images with no or empty alt

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors.update(given[name] for name in ("id", "name") if given.get(name))
        if given.get("href") and tag == "a":
            self.links.append(given["href"])
        if given.get("href") and tag == "link":
            loaded = LOADED_RELATIONS.intersection(given.get("rel", "").lower().split())
            (self.loads if loaded else self.links).append(given["href"])
        if given.get(LOADED.get(tag, "")):
            self.loads.append(given[LOADED[tag]])
        if tag == "img" and given.get("src"):
            self.images.add(given["src"])
        # An image inside a labelled link or button may be decoration, which it has to say.
        decoration = given.get("role") == "presentation" or given.get("aria-hidden") == "true"
        if tag == "img" and not given.get("alt", "").strip() and not decoration:
            self.without_alt.append(given.get("src", "(no src)"))


def read_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    return page


def problems(site: Path) -> list[str]:
    """One sentence for each fault in the HTML files below `site`.

    Raises:
        FileNotFoundError: there are none.
    """
    site = site.resolve()
    # Sphinx's static folder is the theme's, not the book's.
    files = [p for p in sorted(site.rglob("*.html")) if "_static" not in p.relative_to(site).parts]
    if not files:
        raise FileNotFoundError(f"There is no HTML in {site}; build the book first.")
    pages = {path: read_page(path) for path in files}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [
            f"{name}: the image {_short(src)} has no alternative text" for src in page.without_alt
        ]
        weight = path.stat().st_size + _bytes(page.images, path, site)
        if weight > HEAVY and name.as_posix() != OWN_RUNS:
            found.append(f"{name}: with its images it has {weight / 1e6:.1f} MB, more than 3")
        for address in page.loads:
            if urlsplit(address).netloc:
                found.append(f"{name}: {address} is loaded from another host")
            elif fault := _fault(address, path, site, pages):
                found.append(f"{name}: {fault}")
        for address in page.links:
            if not urlsplit(address).netloc and (fault := _fault(address, path, site, pages)):
                found.append(f"{name}: {fault}")
    return sorted(set(found))


def _bytes(images: set[str], path: Path, site: Path) -> int:
    """Size of the image files that the page `path` shows; embedded ones are in its HTML."""
    files = {_target(src, path, site) for src in images if not urlsplit(src).scheme}
    return sum(file.stat().st_size for file in files if file.is_file())


def _target(address: str, path: Path, site: Path) -> Path:
    """The file that an address without host on the page `path` means."""
    place = urlsplit(address).path
    base = site if place.startswith("/") else path.parent
    return (base / unquote(place).lstrip("/")).resolve() if place else path


def _fault(address: str, path: Path, site: Path, pages: dict[Path, Page]) -> str | None:
    """What is wrong with an address without host on the page `path`, if anything."""
    parts = urlsplit(address)
    if parts.scheme:
        return None  # data:, mailto: and the like
    target = _target(address, path, site)
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return f"{_short(address)} does not exist"
    fragment = unquote(parts.fragment)
    if fragment and target in pages and fragment not in pages[target].anchors:
        return f"{_short(address)} names a place that is not on that page"
    return None


def _short(address: str) -> str:
    return address if len(address) <= 100 else address[:97] + "..."


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("Usage: python book/check_links.py FOLDER", file=sys.stderr)
        return 2
    try:
        found = problems(Path(arguments[0]))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    for line in found:
        print(line)
    print(
        f"{len(found)} faults"
        if found
        else "All internal links, images, alternative texts and sizes are fine."
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
