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


def environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def workflows() -> dict[str, dict]:
    folder = ROOT / ".github" / "workflows"
    return {path.name: yaml.safe_load(path.read_text()) for path in folder.glob("*.yml")}


@pytest.mark.parametrize("extra", requirements())
def test_every_requirement_is_pinned_within_its_bounds(extra: str):
    """constraints.txt pins what pyproject.toml asks for, at a version that it allows."""
    for needed in requirements()[extra]:
        pinned = constraints()[canonicalize_name(needed.name)]
        assert needed.specifier.contains(pinned), f"{needed} is pinned to {pinned}"


def test_every_requirement_has_an_upper_bound():
    """A release that does not exist yet cannot break a fresh installation."""
    for needed in [needed for group in requirements().values() for needed in group]:
        assert {"<", "=="} & {part.operator for part in needed.specifier}, str(needed)


def test_a_package_named_twice_has_the_same_bounds():
    """An extra cannot quietly loosen what another one says."""
    bounds: dict[str, SpecifierSet] = {}
    for needed in [needed for group in requirements().values() for needed in group]:
        name = canonicalize_name(needed.name)
        assert bounds.setdefault(name, needed.specifier) == needed.specifier, name


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
    """`pip install .[book]` brings nothing of the training stack."""
    heavy = {"torch", "torchvision", "timm", "accelerate", "datasets", "scikit-learn", "snakemake"}
    assert heavy & closure("book") == set()
    assert heavy <= closure("train", "study")


def test_jupyter_book_stays_at_its_first_version():
    """Jupyter Book 2 ignores _config.yml, builds nothing, and exits with 0."""
    (book,) = [r for r in requirements()["book"] if canonicalize_name(r.name) == "jupyter-book"]
    assert not book.specifier.contains("2.0.0")
    (theme,) = [r for r in requirements()["book"] if r.name == "sphinx-book-theme"]
    assert str(theme.specifier) == "==1.1.4"


def test_environment_yml_leaves_the_versions_to_pyproject_and_constraints():
    """conda gives a supported and tested Python; pip installs every extra under the constraints."""
    assert environment()["channels"] == ["conda-forge", "nodefaults"]
    plain = [entry for entry in environment()["dependencies"] if isinstance(entry, str)]
    (by_pip,) = [entry["pip"] for entry in environment()["dependencies"] if isinstance(entry, dict)]
    (python,) = [entry for entry in plain if entry.startswith("python=")]
    assert python == f"python={TESTED_PYTHON}"
    assert {entry for entry in plain if entry != python} == {"pip", "make"}
    constraint, package = by_pip
    assert constraint == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[([a-z,]+)\]", package)[1].split(",")
    assert set(extras) == set(pyproject()["project"]["optional-dependencies"])


def test_workflows_test_supported_pythons():
    """The tested Python, and the newest supported one, are in the matrix."""
    supported = SpecifierSet(pyproject()["project"]["requires-python"])
    matrix = workflows()["test.yml"]["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert all(supported.contains(version + ".0") for version in [*matrix, TESTED_PYTHON])
    assert TESTED_PYTHON in matrix
    assert not supported.contains("3.14.0") and "3.13" in matrix


def test_make_installs_extras_that_exist():
    """Each target of the Makefile names extras of pyproject.toml, under the constraints."""
    makefile = (ROOT / "Makefile").read_text()
    installed = re.findall(r"\$\(INSTALL\) --editable '\.\[([a-z,]+)\]'", makefile)
    assert {extra for names in installed for extra in names.split(",")} == set(
        pyproject()["project"]["optional-dependencies"]
    )
    assert "--constraint constraints.txt" in makefile


def test_pre_commit_runs_the_pinned_tools():
    """A commit hook and `make lint` cannot disagree because of versions."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {hook["entry"].split()[0] for hook in hooks} == {"ruff", "nbstripout", "codespell"}
    for hook in hooks:
        (pin,) = hook["additional_dependencies"]
        name, version = pin.split("==")
        assert constraints()[name] == version
        assert hook["entry"].split()[0] == name


def test_ci_runs_the_tests():
    """.ci/run can be executed and calls `make test`."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash" and lines[-1] == "make test"
    assert "set -euo pipefail" in lines


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
    owner_and_name = re.escape(address().removeprefix("https://github.com/"))
    named = re.compile(rf"(?<!src/){owner_and_name}")
    assert [
        str(path.relative_to(ROOT))
        for path in text_files()
        if named.search(path.read_text())
        and path not in places
        and path.relative_to(ROOT).parts[:2] != ("book", "runs")
    ] == []


def test_links_to_colab_open_this_repository():
    """Colab's addresses leave out github.com's, so the tests above do not see them."""
    link = re.compile(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)")
    found = {
        (str(path.relative_to(ROOT)), repository)
        for path in text_files()
        # Tests of links make up their own.
        if not path.is_relative_to(ROOT / "tests")
        for repository in link.findall(path.read_text())
    }
    ours = address().removeprefix("https://github.com/")
    assert found and {repository for _, repository in found} == {ours}
