"""A notebook's page: a run's outputs between the clean notebook's prose, under a table of facts."""

import json
import re
from typing import Any

from companion_book import Book, source_page
from companion_card import at_a_glance, provenance_card
from companion_markdown import code, text
from sparsejepa.companion.files import read_json

# The card says what was in force; the defaults beside the injected values would mislead.
_HIDDEN_TAGS = {"parameters", "injected-parameters"}
_IN_WORDS = {"jepa": "JEPA", "sparsejepa": "SparseJEPA", "sigreg": "SIGReg"}


def page_of_run(book: Book, run: str, source: str) -> dict[str, Any]:
    """The notebook that the page shows, as a JSON object.

    Args:
        source: what the page itself holds, shown where there is no whole run.
    """
    try:
        if missing := book.missing(run):
            raise ValueError(f"The run has no {', '.join(missing)}.")
        notebook, facts = book.read(run, "executed.ipynb"), book.facts(run)
        book.read(run, "results.json")
    except ValueError as error:
        warning = admonition("No run to show", f"Below is the bare source. {error}", run)
        return with_cells(json.loads(source), [warning])
    title = ""
    if len(list((book.runs_root / run).parent.glob("*/manifest.json"))) > 1:
        method = str(facts.get("parameters", {}).get("method", run.split("/")[-1]))
        named = [_IN_WORDS.get(method, method), f"seed {facts.get('seed')}"]
        title = ": " + ", ".join(filter(None, named))
    clean = book.root / f"{source_page(run)}.ipynb"
    edit(notebook, read_json(clean) if clean.is_file() else notebook, title)
    cells = [at_a_glance(book, run, facts), provenance_card(book, run, facts)]
    if reasons := book.stale(run):
        why = f"This version of notebook and library did not make it: {'; '.join(reasons)}."
        cells.insert(0, admonition("This run is stale", why, run))
    return with_cells(notebook, cells)


def admonition(title: str, body: str, run: str) -> str:
    """A warning for the reader of a page whose run does not stand."""
    return f":::{{warning}}\n**{title}.** {text(body)} (run {code(run)})\n:::"


def with_cells(notebook: dict[str, Any], markdown: list[str]) -> dict[str, Any]:
    """The notebook with Markdown cells after its first Markdown cell, the one with the title."""
    cells, kind = notebook["cells"], "markdown"
    first = next((i for i, cell in enumerate(cells, 1) if cell["cell_type"] == kind), 0)
    new = [
        {"cell_type": kind, "id": f"companion-{i}", "metadata": {}, "source": source}
        for i, source in enumerate(markdown)
    ]
    return {**notebook, "cells": [*cells[:first], *new, *cells[first:]]}


def edit(notebook: dict[str, Any], clean: dict[str, Any], title: str) -> None:
    """Prose of the clean notebook, as only code makes a run stale; no parameter cells (in place).

    Args:
        title: goes on after the notebook's title, where several pages show the notebook.
    """
    prose = {c.get("id"): c["source"] for c in clean["cells"] if c["cell_type"] == "markdown"}
    for cell in notebook["cells"]:
        tags = set(cell["metadata"].get("tags", []))
        if tags & _HIDDEN_TAGS:
            cell["metadata"]["tags"] = sorted({*tags, "remove-cell"})
        if cell["cell_type"] == "markdown":
            cell["source"] = "".join(prose.get(cell.get("id"), cell["source"]))
            cell["source"] = re.sub("^# .*", lambda line: line[0] + title, cell["source"], count=1)


def point_buttons_at_source(buttons: list[dict[str, Any]], page: str, run: str) -> None:
    """Colab, GitHub and edit buttons of a run's page open the clean notebook (in place)."""
    for button in buttons:
        point_buttons_at_source(button.get("buttons", []), page, run)
        # Downloads are relative addresses and stay those of the executed notebook.
        if "://" in button.get("url", ""):
            button["url"] = button["url"].replace(f"{page}.ipynb", f"{source_page(run)}.ipynb")
