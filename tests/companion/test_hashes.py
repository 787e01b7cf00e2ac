"""What counts as a change of a notebook and of the library, and what does not."""

import sys
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejepa.companion.hashes import (
    BOOKKEEPING,
    code_hash,
    library_hashes,
    module_path,
    source_hash,
)
from tests.companion.tiny_repository import toy_notebook
from tests.repository import ROOT

CODE = '''"""Doc."""
import os  # remark


class A:
    """Doc
    over lines."""

    def f(self, x: int) -> str:
        """Doc é."""
        text = """a \x20

        # not a remark
        """

        # remark
        return f"{x!r:>{4}} # {'inner'}" + text + (
            "one"
            # remark
            "two"
        )
'''
SAME = '''# Another remark.
import os
class A:
    def f(self, x: int) -> str:
        "Ö" "l"
        text = """a \x20

        # not a remark
        """
        return f"{x!r:>{4}} # {'inner'}" + text + ("one" "two")
'''


def test_remarks_docstrings_and_layout_have_no_hash():
    """Only what Python executes counts."""
    assert code_hash(CODE) == code_hash(SAME)


@pytest.mark.parametrize(
    ("old", "new"),
    [("a  \n", "a\n"), ("# not", "# No"), (" # {", "#{"), ("!r", "!s"), ("'inner'", "'Inner'")],
)
def test_the_inside_of_strings_counts(old: str, new: str):
    """Spaces, marks and expressions in string constants are results, not remarks."""
    assert old in CODE and code_hash(CODE) != code_hash(CODE.replace(old, new))


def test_structure_counts():
    """The same tokens in another block are another program."""
    inside, outside = "if a:\n    b()\n    c()\n", "if a:\n    b()\nc()\n"
    assert code_hash(inside) != code_hash(outside)


def test_code_hash_is_one_on_every_python():
    """The value that 3.11, 3.12 and 3.13 give for a file with every kind of string."""
    expected = "bc75b6180ddbeef99415bb9f3d1606c9af4deab1b13a34613fdbee98627262a0"
    assert code_hash(CODE) == expected


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Z"])))
def test_any_remark_is_ignored(remark: str):
    """A remark of any text at a line's end leaves the hash."""
    assert code_hash(f"x = 1  # {remark}\n") == code_hash("x = 1\n")


def test_library_hashes_leave_out_bookkeeping_and_others():
    """Only modules of this package that can change a result."""
    hashes = library_hashes(sys.modules)
    assert "sparsejepa" in hashes
    assert not BOOKKEEPING & set(hashes)
    assert all(name.split(".")[0] == "sparsejepa" for name in hashes)


def test_bookkeeping_modules_exist():
    """The list of modules left out is not out of date."""
    assert all(module_path(name, ROOT / "src").is_file() for name in BOOKKEEPING)


def test_an_executed_copy_has_its_sources_hash(tmp_path: Path):
    """Outputs, metadata, injected cells, prose and remarks do not count; code does."""
    notebook = toy_notebook()
    nbformat.write(notebook, tmp_path / "source.ipynb")
    injected = nbformat.v4.new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(2, injected)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="x")]
    notebook.metadata["papermill"] = {"parameters": {"seed": 1}}
    nbformat.write(notebook, tmp_path / "executed.ipynb")
    expected = source_hash(tmp_path / "source.ipynb")
    assert source_hash(tmp_path / "executed.ipynb") == expected
    notebook.cells[0].source += "!"
    notebook.cells[-1].source += "  # a remark"
    nbformat.write(notebook, tmp_path / "executed.ipynb")
    assert source_hash(tmp_path / "executed.ipynb") == expected
    notebook.cells[-1].source += "\n1 + 1"
    nbformat.write(notebook, tmp_path / "executed.ipynb")
    assert source_hash(tmp_path / "executed.ipynb") != expected
