"""A chapter is linked where the book has it, and named where it has not."""

from types import SimpleNamespace

import pytest

from companion_chapters import ChapterRole


@pytest.mark.parametrize("there", [True, False])
def test_chapter(there: bool):
    """Only a chapter that is missing makes the page be read again by the next build."""
    reread = []
    env = SimpleNamespace(
        found_docs={"notebooks/06_sparsity"} if there else set(),
        docname="book/related",
        note_reread=lambda: reread.append(True),
    )
    role = ChapterRole()
    role.inliner = SimpleNamespace(document=SimpleNamespace(settings=SimpleNamespace(env=env)))
    role.text = "06_sparsity"
    found, messages = role.run()
    assert messages == [] and bool(reread) is not there
    if there:
        assert found[0]["reftarget"] == "/notebooks/06_sparsity" and found[0]["refwarn"]
    else:
        assert "".join(node.astext() for node in found) == "06_sparsity (no committed run yet)"
