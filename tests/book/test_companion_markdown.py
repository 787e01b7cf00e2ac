"""Values to MyST: escaping, numbers, tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from companion_markdown import code, command_block, list_table, number, text

ONE_LINE = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])).map(
    lambda word: "x" + word + "x"
)


def rendered(markdown: str) -> list:
    (paragraph,) = [t for t in MarkdownIt().parse(markdown) if t.type == "inline"]
    return [t for t in paragraph.children if t.type != "text" or t.content]


@given(ONE_LINE)
def test_escaped_text_reads_as_it_was(word: str):
    """Whatever Markdown a value holds, the reader sees its characters and no markup."""
    tokens = rendered(text(word))
    assert {token.type for token in tokens} <= {"text", "text_special"}
    assert "".join(token.content for token in tokens) == word


@given(ONE_LINE)
def test_code_reads_as_it_was(word: str):
    """Backticks in a value do not end its code span."""
    (token,) = rendered(code(word))
    assert (token.type, token.content) == ("code_inline", word)


def test_line_breaks_cannot_leave_a_table_cell():
    """Text and code stay on one line."""
    assert text("a\n\nb") == "a b"
    assert code("a\n* - b") == "`a * - b`"


def test_empty_code_is_visible():
    """Two backticks alone would be no code span."""
    assert code("") == "(empty)"


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (0.2704, ".1%", "27.0\u202f%"),
        ({"value": 0.27, "interval": [0.261, 0.279]}, ".1%", "27.0\u202f% [26.1, 27.9]"),
        ({"value": 2.5, "interval": [1, 4]}, ".2f", "2.50 [1.00, 4.00]"),
        ({"value": 3}, "", "3"),
        (12, "", "12"),
        (0.123456, "", "0.1235"),
        ("bf16", "", "bf16"),
    ],
)
def test_numbers_show_their_interval_and_unit(value, form: str, shown: str):
    """A format holds for the value and both bounds; a unit stands once."""
    assert number(value, form) == shown


@pytest.mark.parametrize("value", [None, True, [1, 2], {"mean": 1}])
def test_what_is_no_number_is_refused(value):
    """Nothing is shown as a result that is none."""
    with pytest.raises(ValueError, match="is no number"):
        number(value, ".1f")


def test_a_command_cannot_leave_its_block():
    """Backticks in a parameter do not end the block."""
    assert command_block("a ``` b").startswith("````bash\n")


def test_first_column_of_a_table_heads_its_rows():
    """Screen readers announce it with each cell."""
    assert list_table([("a", "b")]) == (
        ":::{list-table}\n:header-rows: 0\n:stub-columns: 1\n\n* - a\n  - b\n:::"
    )
