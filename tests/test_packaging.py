"""The files that say what is installed, and from where the code comes, agree with each other."""

import os
import platform
import re
from importlib.metadata import distribution

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.repository import ROOT, address, constraints, pyproject, requirements, text_files

# Everything that names the repository's address besides pyproject.toml. A fork changes them all.
PLACES = ["CITATION.cff", "README.md", "_config.yml", "notebooks/*.ipynb"]
# torch on Linux asks for these by itself; on other platforms they do not exist.
CUDA = re.compile(r"nvidia-.*|cuda-.*|triton")
TESTED_PYTHON = re.search(
    r"Tested with Python (\d+\.\d+)\.", (ROOT / "constraints.txt").read_text()
)[1]


def closure(*extras: str) -> set[str]:
    """Every package that installing sparsejepa with these extras brings, by installed metadata."""
    seen: set[tuple[str, tuple[str, ...]]] = set()
    waiting = [("sparsejepa", tuple(extras))]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for line in distribution(name).requires or []:
            needed = Requirement(line)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted)
            ):
                waiting.append((canonicalize_name(needed.name), tuple(sorted(needed.extras))))
    return {name for name, _ in seen}


def test_every_requirement_is_bounded_and_pinned():
    """From above, alike in every extra; constraints.txt has a version that it allows."""
    bounds: dict[str, SpecifierSet] = {}
    for needed in [needed for group in requirements().values() for needed in group]:
        name = canonicalize_name(needed.name)
        assert {"<", "=="} & {part.operator for part in needed.specifier}, str(needed)
        assert bounds.setdefault(name, needed.specifier) == needed.specifier, name
        assert needed.specifier.contains(constraints()[name]), str(needed)


@pytest.mark.skipif(
    not platform.python_version().startswith(TESTED_PYTHON + "."),
    reason="constraints.txt was made with another Python",
)
def test_constraints_pin_the_whole_environment_but_cuda():
    """Nothing that `make test` installs is left to float."""
    floating = closure(*requirements()) - set(constraints()) - {"sparsejepa", "setuptools"}
    assert {name for name in floating if not CUDA.fullmatch(name)} == set()


def test_constraints_work_on_every_platform():
    """No package for one platform, no local version such as +cu130, no path."""
    for name, version in constraints().items():
        assert not CUDA.fullmatch(name)
        assert re.fullmatch(r"[0-9.]+(\.?(post|rc|a|b)[0-9]+)?", version), f"{name}=={version}"


def test_the_book_builds_without_torch():
    """`pip install .[book]` brings nothing of the training stack.

    Nor Jupyter Book 2, which ignores _config.yml, builds nothing, and exits with 0.
    """
    heavy = {"torch", "torchvision", "timm", "accelerate", "datasets", "scikit-learn", "snakemake"}
    assert heavy & closure("book") == set()
    assert heavy <= closure("train", "study")
    (book,) = [r for r in requirements()["book"] if canonicalize_name(r.name) == "jupyter-book"]
    assert not book.specifier.contains("2.0.0")


def test_make_and_conda_install_every_extra_under_the_constraints():
    """With the tested Python, which the workflow tests too, as it does the newest supported one."""
    extras, makefile = set(requirements()) - {""}, (ROOT / "Makefile").read_text()
    installed = re.findall(r"\$\(INSTALL\) --editable '\.\[([a-z,]+)\]'", makefile)
    assert set(",".join(installed).split(",")) == extras
    assert "--constraint constraints.txt" in makefile
    python, *_, by_pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    constraint, package = by_pip["pip"]
    assert (python, constraint) == (f"python={TESTED_PYTHON}", "-c constraints.txt")
    assert set(re.fullmatch(r"-e \.\[([a-z,]+)\]", package)[1].split(",")) == extras
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    supported = SpecifierSet(pyproject()["project"]["requires-python"])
    assert all(supported.contains(version + ".0") for version in matrix)
    assert not supported.contains("3.14.0") and {TESTED_PYTHON, "3.13"} <= set(matrix)


def test_pre_commit_runs_the_pinned_tools():
    """A commit hook and `make lint` cannot disagree because of versions."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    for hook in [hook for repo in config["repos"] for hook in repo["hooks"]]:
        (pin,) = hook["additional_dependencies"]
        name = hook["entry"].split()[0]
        assert pin == f"{name}=={constraints()[name]}"


def test_ci_runs_the_tests():
    """.ci/run can be executed and calls `make test`."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make test"


def test_version_and_licence_are_the_same_everywhere():
    """CITATION.cff says what the package says."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == distribution("sparsejepa").version
    assert citation["license"] == pyproject()["project"]["license"] == "MIT"
    (author,) = pyproject()["project"]["authors"]
    assert author == citation["authors"][0]
    assert author["name"] in (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("pattern", PLACES)
def test_every_place_names_the_repository_of_pyproject(pattern: str):
    """A fork that changes [project.urls] Repository is told here which places still differ."""
    for path in sorted(ROOT.glob(pattern)):
        assert address() in path.read_text(), f"{path.relative_to(ROOT)} lacks {address()}"
    assert list(ROOT.glob(pattern)), f"there is no {pattern}"


def test_no_other_file_names_the_repository():
    """PLACES above is complete. Committed runs keep the address that they were made with."""
    places = {path for pattern in [*PLACES, "pyproject.toml"] for path in ROOT.glob(pattern)}
    # A folder of the library has the same name; it lies under src.
    ours = address().removeprefix("https://github.com/")
    named = re.compile(rf"(?<!src/){re.escape(ours)}")
    rest = {path for path in text_files() if not path.is_relative_to(ROOT / "book" / "runs")}
    assert [path for path in rest - places if named.search(path.read_text())] == []
    # Addresses of Colab leave out github.com's; tests of links make up their own.
    link = re.compile(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)")
    pages = [path.read_text() for path in rest if not path.is_relative_to(ROOT / "tests")]
    assert {repository for page in pages for repository in link.findall(page)} == {ours}
