"""The role `chapter`: a link to a notebook's page, where the book has that page.

    {chapter}`06_sparsity`

A chapter is in the book once a run of it is committed. Until then its name stands without a link,
so that a page may speak of all chapters at any time.
"""

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole


class ChapterRole(SphinxRole):
    """Inserts the chapter's title as a link, or its name in plain."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        page = f"notebooks/{self.text}"
        if page in self.env.found_docs:
            link = pending_xref(
                refdomain="std", reftype="doc", reftarget=f"/{page}", refexplicit=False
            )
            link["refdoc"] = self.env.docname
            link["refwarn"] = True
            link += nodes.inline(self.text, self.text)
            return [link], []
        # It may come later, without a change of this page.
        self.env.note_reread()
        return [nodes.literal(self.text, self.text), nodes.Text(" (no committed run yet)")], []


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_role("chapter", ChapterRole())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
