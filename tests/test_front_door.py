"""The names that `from sparsejepa import ...` offers."""

import importlib
import subprocess
import sys

import pytest

import sparsejepa


@pytest.mark.parametrize("name", sorted(sparsejepa._HOMES))
def test_every_public_name_is_where_the_table_says(name: str):
    """It is the object of its module, and says what it is."""
    found = getattr(sparsejepa, name)
    home = importlib.import_module(f"sparsejepa.{sparsejepa._HOMES[name]}")
    assert found is getattr(home, name) and name in dir(sparsejepa)
    assert isinstance(found, dict) or found.__doc__


def test_the_package_itself_imports_nothing_heavy():
    """The book builds without torch; an unknown name is an AttributeError, as in any module."""
    script = "import sys, sparsejepa; print('torch' in sys.modules, sparsejepa.__version__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["False", sparsejepa.__version__]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sparsejepa.nothing  # noqa: B018
