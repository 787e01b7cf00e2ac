"""Checks built HTML: every internal link, anchor and image exists, every image has an alternative
text, nothing is loaded from another host.

    python book/check_links.py _build/html

Sphinx's strict build misses some of this: a figure can be lost between a notebook's outputs and the
page without a warning. Only the standard library is used.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# A <link> with one of these is fetched; others, such as next and prev, only name a page.
FETCHED = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "prefetch"}


class Page(HTMLParser):
    """What one HTML file refers to, and what can be referred to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.followed: set[str] = set()  # addresses a reader may follow
        self.fetched: set[str] = set()  # addresses a browser fetches on its own
        self.without_alt: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors.update(filter(None, (given.get("id"), given.get("name"))))
        relations = set(given.get("rel", "").lower().split())
        linked = tag == "a" or (tag == "link" and not relations & FETCHED)
        for address in filter(None, (given.get("href"), given.get("src"), given.get("data"))):
            (self.followed if linked else self.fetched).add(address)
        # An image inside a labelled link or button may be decoration, which it has to say.
        decoration = given.get("role") == "presentation" or given.get("aria-hidden") == "true"
        if tag == "img" and not given.get("alt", "").strip() and not decoration:
            self.without_alt.add(given.get("src", "(no src)"))


def problems(site: Path) -> list[str]:
    """One sentence for each fault in the HTML files below `site`."""
    # Sphinx's static folder is the theme's, not the book's.
    files = [p for p in site.resolve().rglob("*.html") if "_static" not in p.parts]
    pages, found = {path: Page(path) for path in files}, []
    for path, page in pages.items():
        faults = [f"the image {src:.100} has no alternative text" for src in page.without_alt]
        hosts = [address for address in page.fetched if urlsplit(address).netloc]
        faults += [f"{address} is loaded from another host" for address in hosts]
        for address in page.followed | page.fetched:
            parts = urlsplit(address)
            if parts.netloc or parts.scheme:
                continue  # another host, data:, mailto:
            base = site.resolve() if parts.path.startswith("/") else path.parent
            target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            fragment = unquote(parts.fragment)
            if not target.is_file():
                faults.append(f"{address:.100} does not exist")
            elif fragment and target in pages and fragment not in pages[target].anchors:
                faults.append(f"{address:.100} names a place that is not on that page")
        found += [f"{path.relative_to(site.resolve())}: {fault}" for fault in faults]
    return sorted(found) if files else [f"There is no HTML in {site}; build the book first."]


if __name__ == "__main__":
    faults = problems(Path(sys.argv[1]))
    print("\n".join(faults) or "All internal links, images and alternative texts are fine.")
    sys.exit(bool(faults))
