"""Values to MyST: escaping, numbers, tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from companion_markdown import code, command_block, list_table, number, text

ONE_LINE = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])).map("x{}x".format)


def rendered(markdown: str) -> list:
    (paragraph,) = [t for t in MarkdownIt().parse(markdown) if t.type == "inline"]
    return [t for t in paragraph.children if t.type != "text" or t.content]


@given(ONE_LINE)
def test_values_read_as_they_were(word: str):
    """Whatever Markdown a value holds, the reader sees its characters and no markup."""
    tokens = rendered(text(word))
    assert {token.type for token in tokens} <= {"text", "text_special"}
    assert "".join(token.content for token in tokens) == word
    (token,) = rendered(code(word))
    assert (token.type, token.content) == ("code_inline", word)


def test_values_stay_in_their_place():
    """Line breaks in a cell of a table; no code at all; a fence in a block of code."""
    assert text("a\n\nb") == "a b"
    assert code("a\n* - b") == "`a * - b`"
    assert code("") == "(empty)", "two backticks alone would be no code span"
    assert command_block("a ``` b").startswith("````bash\n")
    table = ":::{list-table}\n:header-rows: 0\n:stub-columns: 1\n\n* - a\n  - b\n:::"
    assert list_table([("a", "b")]) == table, "the first column heads its rows, for screen readers"


def test_numbers_show_their_interval_and_unit():
    """A format holds for the value and both bounds; a unit stands once."""
    cell = {"value": 0.27, "interval": [0.261, 0.279]}
    assert number(cell, ".1%") == "27.0\u202f% [26.1, 27.9]"
    found = [number(value) for value in ({"value": 3}, 0.123456, "bf16")]
    assert found == ["3", "0.1235", "bf16"]
    for value in (None, True, [1, 2], {"mean": 1}):
        with pytest.raises(ValueError, match="is no number"):
            number(value, ".1f")
