"""Sphinx extension: pages show committed runs of the notebooks, and fail when these do not stand.

On reading `notebooks/X` the text is replaced by the executed notebook of the run that the
configuration value `companion_runs` gives for that page; a run's own page
`book/runs/<preset>/<notebook>/<run>/executed` shows itself. Both get a provenance card. A run that
is missing (`companion.missing`) or stale (`companion.stale`) is a warning, hence fails `-W`. So is
one that no page shows: other pages print its numbers.
"""

import json
from collections.abc import Sequence
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from companion_card import provenance_card
from companion_claims import show_claims
from companion_files import (
    Run,
    depends_on,
    finished_runs,
    run_of_page,
    stale_because,
    unfinished_runs,
)
from companion_markdown import code, text
from companion_own import MARKER, own_runs_page
from companion_results import ResultRole
from sparsejepa.companion.evidence import making_command

logger = logging.getLogger(__name__)

# The card says what was in force; the defaults beside the injected values would mislead.
_HIDDEN_TAGS = {"parameters", "injected-parameters"}


def show_run(app: Sphinx, docname: str, source: list[str]) -> None:
    """Puts runs into the page that Sphinx just read (`source-read`)."""
    # The repository's address has one place, which a fork changes: the configuration.
    repository = app.config.html_theme_options.get("repository_url", "")
    source[0] = source[0].replace("@REPOSITORY@", repository)
    show_claims(app, docname, source)
    if any(line.strip() == MARKER for line in source[0].splitlines()):
        # New runs may have come since: no file that exists now could tell.
        app.env.note_reread()
        source[0] = own_runs_page(app.srcdir, source[0])
        return
    run = run_of_page(app.srcdir, docname, app.config.companion_runs)
    if run is None:
        return
    for path in depends_on(run):
        app.env.note_dependency(str(path))
    source[0] = json.dumps(page_of_run(run, docname, source[0]))


def page_of_run(run: Run, docname: str, source: str) -> dict[str, Any]:
    """The notebook that the page shows, as a JSON object; warns where the run does not stand."""
    try:
        missing = run.missing()
        if missing:
            raise ValueError(f"has no {', '.join(missing)}")
        notebook = run.read("executed.ipynb")
        manifest = run.read("manifest.json")
        run.read("results.json")
    except ValueError as error:
        warn_missing(docname, run, str(error))
        return with_cells(json.loads(source), [admonition("No run to show", _MISSING, run)])
    cells = [provenance_card(run, manifest)]
    reasons = stale_because(run)
    if reasons:
        warn_stale(docname, run, reasons)
        cells.insert(0, admonition("This run is stale", _STALE + "; ".join(reasons) + ".", run))
    if run.source.is_file():
        show_current_prose(notebook, json.loads(run.source.read_text(encoding="utf-8")))
    hide_parameters(notebook)
    name_title(notebook, run.name)
    return with_cells(notebook, cells)


_MISSING = (
    "No finished run of this notebook lies where the book looks for it. Below is the bare source."
)
_STALE = "It is not what this version of notebook and library made: "


def check_runs_without_page(app: Sphinx, env: BuildEnvironment, docnames: Sequence[str]) -> None:
    """Warns of stored runs that no page shows, before the pages are read.

    Only of presets that the book shows: the reader's own runs may be as they like.
    """
    shown = app.config.companion_runs
    presets = {run_id.partition("/")[0] for run_id in shown.values()}
    paged = {run_of_page(app.srcdir, page, shown) for page in env.found_docs}

    def without_page(runs: Sequence[Run]) -> list[Run]:
        return [run for run in runs if run.preset in presets and run not in paged]

    unfinished = without_page(unfinished_runs(app.srcdir))
    for run in unfinished:
        warn_missing(run.page, run, f"has no {', '.join(run.missing())}")
    for run in without_page(finished_runs(app.srcdir)):
        reasons = [] if run in unfinished else stale_because(run)
        if reasons:
            warn_stale(run.page, run, reasons)


def warn_missing(docname: str, run: Run, what: str) -> None:
    """Fails a strict build: a run that the book needs is not whole."""
    logger.warning(
        "%s: the run %s %s; make it by `%s`.",
        *(docname, run.id, what, f"sparsejepa reproduce --preset {run.preset}"),
        location=docname,
        type="companion",
        subtype="missing",
    )


def warn_stale(docname: str, run: Run, reasons: Sequence[str]) -> None:
    """Fails a strict build: what the run says is not what the notebook here would say."""
    logger.warning(
        "%s: the run %s is stale: %s; make it again by `%s`, or run `sparsejepa certify` if only "
        "code has changed.",
        *(docname, run.id, "; ".join(reasons), making_command(run.id)),
        location=docname,
        type="companion",
        subtype="stale",
    )


def admonition(title: str, body: str, run: Run) -> str:
    """A warning for the reader of a page whose run does not stand."""
    return f":::{{warning}}\n**{title}.** {text(body)} (run {code(run.id)})\n:::"


def with_cells(notebook: dict[str, Any], markdown: list[str]) -> dict[str, Any]:
    """The notebook with Markdown cells after its first Markdown cell, the one with the title."""
    cells = notebook["cells"]
    first = next((i for i, c in enumerate(cells) if c["cell_type"] == "markdown"), -1)
    new = [
        {"cell_type": "markdown", "id": f"companion-{i}", "metadata": {}, "source": cell}
        for i, cell in enumerate(markdown)
    ]
    return {**notebook, "cells": [*cells[: first + 1], *new, *cells[first + 1 :]]}


def show_current_prose(notebook: dict[str, Any], clean: dict[str, Any]) -> None:
    """Takes prose from the clean notebook (in place): only code makes a run stale."""
    prose = {c.get("id"): c["source"] for c in clean["cells"] if c["cell_type"] == "markdown"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = prose.get(cell.get("id"), cell["source"])


def hide_parameters(notebook: dict[str, Any]) -> None:
    """Takes the parameter cells out of the shown page (in place)."""
    for cell in notebook["cells"]:
        tags = cell.get("metadata", {}).get("tags", [])
        if _HIDDEN_TAGS.intersection(tags):
            cell["metadata"]["tags"] = sorted({*tags, "remove-cell"})


def name_title(notebook: dict[str, Any], name: str) -> None:
    """Adds the run's name to the title (in place): several pages show the same notebook."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and source.startswith("# "):
            title, _, rest = source.partition("\n")
            cell["source"] = f"{title.rstrip()}: {name}\n{rest}"
            return


def point_buttons_at_source(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Colab, GitHub and edit buttons of a run's page open the clean notebook, not the output."""
    run = run_of_page(app.srcdir, pagename, {})
    if run is not None:
        redirect(context.get("header_buttons", []), pagename, run.source_page)


def redirect(buttons: list[dict[str, Any]], pagename: str, source_page: str) -> None:
    """Changes the addresses of buttons and groups of buttons in place."""
    for button in buttons:
        redirect(button.get("buttons", []), pagename, source_page)
        # Downloads are relative addresses and stay those of the executed notebook.
        if "://" in button.get("url", ""):
            button["url"] = button["url"].replace(f"{pagename}.ipynb", f"{source_page}.ipynb")


def drop_thebe(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Takes Thebe's files out: unused, loaded twice (an error in the console), not offline."""
    for kind in ("script_files", "css_files"):
        files = context.get(kind, [])
        files[:] = [file for file in files if not _is_thebe(file)]


def _is_thebe(file: Any) -> bool:
    # Inline scripts carry their text as an attribute `body`.
    body = getattr(file, "attributes", {}).get("body") or ""
    name = str(getattr(file, "filename", file) or "")
    return "sphinx-thebe" in name or "THEBE_JS_URL" in body


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("companion_runs", {}, "env")
    app.add_role("result", ResultRole())
    app.connect("env-before-read-docs", check_runs_without_page)
    app.connect("source-read", show_run)
    # After the theme (501) has made its buttons.
    app.connect("html-page-context", point_buttons_at_source, priority=900)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
