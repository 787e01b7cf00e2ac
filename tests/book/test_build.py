"""A strict build of a small book with the real configuration and extension."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.book.tiny_book import make_book, make_run
from tests.repository import address

RUN_PAGE = "book/runs/reference/01_pretrain/sparsejepa-seed0/executed.html"


def build(root: Path) -> subprocess.CompletedProcess:
    main = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", main, "build", ".", "-W", "-n", "--keep-going"]
    # A proxy at which nobody listens: a build that needs the network fails.
    offline = dict.fromkeys(("https_proxy", "http_proxy"), "http://127.0.0.1:9")
    environment = os.environ | offline | {"PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("book")
    make_book(root)
    make_run(root, "demo/01_pretrain/jepa-seed0")
    done = build(root)
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "_build" / "html"


def test_run_shows_outputs_card_and_downloads(site: Path):
    """Executed image with its alternative text, provenance, results to download."""
    for page in ("notebooks/01_pretrain.html", RUN_PAGE):
        html = (site / page).read_text()
        assert 'alt="Loss over epochs."' in html
        assert "Where this comes from" in html
        assert "SparseJEPA, seed 0" in html or "JEPA, seed 0" in html
        assert "run_folder" not in html.split("<article", 1)[1].split("</article>")[0]
        assert html.count('class="reference download internal"') == 2
        # Buttons open the clean notebook.
        place = address().removeprefix("https://github.com") + "/blob/main"
        colab = f"https://colab.research.google.com/github{place}/notebooks/01_pretrain.ipynb"
        assert colab in html and "main/book/runs" not in html


def test_numbers_come_from_the_results(site: Path):
    """In prose with interval and, on hovering, the file; own runs on their page; all as CSV."""
    html = (site / "book" / "index.html").read_text()
    assert "27.0\u202f% [26.1, 27.9]</abbr>" in html
    assert "in book/runs/reference/01_pretrain/jepa-seed0/results.json" in html
    html = (site / "book" / "your_runs.html").read_text()
    assert "demo/01_pretrain/jepa-seed0" in html and "results.json" in html
    assert "reference/01_pretrain/jepa-seed0" in (site / "downloads" / "results.csv").read_text()


def test_formulas_need_no_network(site: Path):
    """MathJax is the vendored one; no script comes from elsewhere, Thebe is dropped."""
    html = (site / "notebooks" / "01_pretrain.html").read_text()
    assert "_static/mathjax/tex-mml-chtml.js" in html
    assert (site / "_static" / "mathjax" / "output" / "chtml" / "fonts").is_dir()
    for network in ("jsdelivr", "unpkg.com", "cdnjs", "sphinx-thebe", "thebe_js_url"):
        assert network not in html.lower()


def test_stale_missing_and_unknown_fail_the_build(tmp_path: Path):
    """Each fault is a warning of its own; all are reported by one build."""
    make_book(tmp_path)
    (tmp_path / "src" / "sparsejepa" / "used.py").write_text("answer = 43\n")
    runs = tmp_path / "book" / "runs" / "reference" / "01_pretrain"
    (runs / "sparsejepa-seed0" / "results.json").unlink()
    index = tmp_path / "book" / "index.md"
    text = index.read_text().replace("last block.linear probe", "last block.median")
    text += "\n```{companion} scorecards\n```\n\n```{companion} claims\n```\n"
    text += '<a href="gone.csv">x</a> <img src="logo.png" alt=" "> <img src="//a.org/b" alt="b">\n'
    index.write_text(text)
    done = build(tmp_path)
    assert done.returncode != 0
    for fault in (
        "the run reference/01_pretrain/jepa-seed0 is stale",
        "sparsejepa-seed0 has no results.json",
        "no 'median' in accuracy.jepa, last block (there: linear",
        "there is no part 'scorecards'; the parts are claims, counts",
        "claims.yml",
        "book/index: gone.csv does not exist",
        'src="logo.png" alt=" "> has no alternative text',
        "//a.org/b is loaded from another host",
    ):
        assert fault in done.stdout + done.stderr
    assert "This run is stale" in (tmp_path / "_build/html/notebooks/01_pretrain.html").read_text()
