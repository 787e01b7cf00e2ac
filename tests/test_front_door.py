"""The names that `from sparsejepa import ...` offers."""

import subprocess
import sys

import pytest

import sparsejepa


def test_every_public_name_is_there_and_says_what_it_is():
    """Tables apart, which hold what does."""
    for name in sparsejepa.__all__:
        found = getattr(sparsejepa, name)
        assert name in dir(sparsejepa) and (isinstance(found, dict) or found.__doc__)


def test_the_package_itself_imports_nothing_heavy():
    """The book builds without torch; an unknown name is an AttributeError, as in any module."""
    script = "import sys, sparsejepa; print('torch' in sys.modules, sparsejepa.__version__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["False", sparsejepa.__version__]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sparsejepa.nothing  # noqa: B018
