"""Mends what other people's writers leave in a page that a screen reader stumbles over.

docutils gives the bibliography roles that are deprecated and do not fit each other, and pandas
heads the column of row names by an empty cell. Without this, axe-core reports both.
"""

import re
from typing import Any

from sphinx.application import Sphinx

_ROLES = re.compile(r' role="(?:list|doc-biblioentry)"')
_EMPTY_HEADER = re.compile(r"<th([^>]*)>((?:\s|&nbsp;|&#160;)*)</th>")


def mended(body: str) -> str:
    """The page's HTML without those roles, and with empty header cells as plain ones."""
    return _EMPTY_HEADER.sub(r"<td\1>\2</td>", _ROLES.sub("", body))


def mend(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Changes the body before it is written (`html-page-context`)."""
    if "body" in context:
        context["body"] = mended(context["body"])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", mend)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
