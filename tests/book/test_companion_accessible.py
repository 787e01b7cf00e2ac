"""Roles and empty headers that axe-core reports are mended, all else is left."""

from companion_accessible import mended


def test_bibliography_has_no_roles_that_do_not_fit():
    """Text, ids and other roles stay."""
    entry = '<div id="a" role="doc-biblioentry"><p role="note">A</p></div>'
    body = f'<div role="list" class="c">{entry}</div>'
    assert mended(body) == '<div class="c"><div id="a"><p role="note">A</p></div></div>'


def test_an_empty_header_becomes_a_plain_cell():
    """With its attributes; a header that says something stays one."""
    body = '<tr><th class="blank" >&nbsp;</th><th> </th><th scope="col">loss</th></tr>'
    assert mended(body) == (
        '<tr><td class="blank" >&nbsp;</td><td> </td><th scope="col">loss</th></tr>'
    )
