"""The book's Sphinx extension: pages show committed runs; a build fails where one does not stand.

A page gets a table by the directive `companion`, and a number in a sentence by the role `result`:

    ```{companion} scorecard
    ```
    {result}`reference/01_pretrain/jepa-seed0:accuracy.raw pixels.kNN|.1%`

`notebooks/X` shows the run that the configuration value `companion_runs` gives for it; a run's own
page `book/runs/<preset>/<notebook>/<run>/executed` shows itself. A run that is missing, stale or
edited, a verdict that its numbers do not bear out, and a name, key or format that does not exist
are warnings (`companion.*`), hence fail `-W`.
"""

import json
import re
from collections.abc import Sequence
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

import companion_claims as claims
import companion_tables as tables
from companion_book import Book
from companion_markdown import number, text
from companion_page import page_of_run, point_buttons_at_source
from sparsejepa.companion.ledger import LEDGER, value_at
from sparsejepa.companion.parameters import run_command

logger = logging.getLogger(__name__)

PARTS = {
    "claims": partial(claims.part, "one_by_one"),
    "counts": partial(claims.part, "in_short"),
    "in-plain-words": partial(claims.part, "in_plain_words"),
    "own-runs": tables.own_runs,
    "runs": tables.committed_runs,
    "scorecard": partial(claims.part, "at_a_glance"),
}


class CompanionDirective(SphinxDirective):
    """Inserts one of `PARTS`, as Markdown that the page could have held itself."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        # A run that has come since changes the page: no file that exists now could tell.
        self.env.note_reread()
        (name,) = self.arguments
        try:
            if name not in PARTS:
                raise ValueError(f"there is no part {name!r}; the parts are {', '.join(PARTS)}.")
            part = PARTS[name](self.env.app.companion)
        except (FileNotFoundError, ValueError) as error:
            warn("part", self.env.docname, str(error))
            part = f":::{{warning}}\n{text(error)}\n:::"
        # As MyST's own `include`: headings become sections of the page.
        self.state._renderer.nested_render_text(part, self.lineno)
        return []


class ResultRole(SphinxRole):
    """A number of a run with its interval; the file and key behind it show on hovering."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        address, _, form = self.text.partition("|")
        run, _, key = address.partition(":")
        runs = self.env.app.companion.runs_root
        self.env.note_dependency(str(runs / run / "results.json"))
        try:
            shown = number(value_at(runs, address), form.strip())
        except ValueError as error:
            warn("result", self.env.docname, f"{self.text!r} can't be shown: {error}")
            return [nodes.literal(self.text, f"?{self.text}?")], []
        source = f"{key} in book/runs/{run}/results.json"
        return [nodes.abbreviation(shown, shown, explanation=source, classes=["result"])], []


def warn(kind: str, page: str, sentence: str) -> None:
    """Fails a strict build."""
    logger.warning("%s: %s", page, sentence, location=page, type="companion", subtype=kind)


def open_book(app: Sphinx, env: BuildEnvironment, docnames: Sequence[str]) -> None:
    """Checks, before pages are read, the runs and claims that any of them may quote."""
    app.companion = book = Book(app.srcdir, app.config.companion_runs, env.found_docs)
    # Runs without a page count too: other pages print their numbers. Own runs may be as they like.
    for run in dict.fromkeys([*book.page_of_run, *book.runs(committed=True)]):
        page = book.page_of_run.get(run, f"book/runs/{run}/executed")
        again = f"make it by `{run_command(run)}`"
        if missing := book.missing(run):
            warn("missing", page, f"the run {run} has no {', '.join(missing)}; {again}.")
        elif reasons := book.stale(run):
            # Said beforehand in the configuration, and on the run's page: only of changed code.
            known = run in app.config.companion_stale
            if known and all("no certificate covers that" in reason for reason in reasons):
                logger.info("The run %s is stale: %s", run, app.config.companion_stale[run])
                continue
            again += ", or run `sparsejepa certify` if only code has changed."
            warn("stale", page, f"the run {run} is stale: {'; '.join(reasons)}; {again}")
    try:
        faults = [sentence for one in book.judgements for sentence in one.faults]
    except FileNotFoundError:
        faults = []  # pages that want the ledger say so
    except ValueError as error:
        faults = [str(error)]
    for sentence in faults:
        warn("claim", LEDGER.with_suffix("").as_posix(), sentence)


def show_run(app: Sphinx, docname: str, source: list[str]) -> None:
    """Puts the run into the page that Sphinx just read (`source-read`)."""
    # The repository's address has one place, which a fork changes: the configuration.
    repository = app.config.html_theme_options.get("repository_url", "")
    source[0] = source[0].replace("@REPOSITORY@", repository)
    if run := app.companion.run_of_page(docname):
        app.env.note_reread()
        source[0] = json.dumps(page_of_run(app.companion, run, source[0]))


def mend_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Points a run's buttons at the clean notebook, and mends what others' writers leave."""
    run = app.companion.run_of_page(pagename)
    if run and pagename not in app.companion.shown:
        point_buttons_at_source(context.get("header_buttons", []), pagename, run)
    if "body" in context:
        context["body"] = accessible(context["body"])
        check_html(app, pagename, context["body"])
    # Thebe is unused, loaded twice (an error in the console), and not offline.
    for kind in ("script_files", "css_files"):
        files = context.get(kind, [])
        files[:] = [file for file in files if not _is_thebe(file)]


def accessible(body: str) -> str:
    """Without what axe-core reports of others' HTML.

    docutils gives the bibliography roles that are deprecated and do not fit each other, and pandas
    heads the column of row names by an empty cell.
    """
    body = re.sub(r' role="(?:list|doc-biblioentry)"', "", body)
    return re.sub(r"<th([^>]*)>((?:\s|&nbsp;|&#160;)*)</th>", r"<td\1>\2</td>", body)


def check_html(app: Sphinx, page: str, body: str) -> None:
    """What a strict build lets pass: lost images, dead links in raw HTML, no alternative text."""
    for image in re.findall(r"<img\b[^>]*>", body):
        if not re.search(r'\balt="[^"]*\S[^"]*"|role="presentation"', image):
            warn("html", page, f"{image:.100} has no alternative text")
    for kind, address in re.findall(r'<[^>]*\b(href|src)="([^"#?]+)', body):
        if re.match(r"(https?:)?//", address):
            if kind == "src":
                warn("html", page, f"{address:.100} is loaded from another host")
        elif not re.match(r"\w+:", address):
            app.companion.linked.add((page, unquote(unescape(address))))


def check_links(app: Sphinx, exception: Exception | None) -> None:
    """Every file that a page links to or shows is there (`build-finished`)."""
    for page, address in sorted(app.companion.linked):
        if exception is None and not (Path(app.outdir, page).parent / address).exists():
            warn("html", page, f"{address} does not exist")


def _is_thebe(file: Any) -> bool:
    # Inline scripts carry their text as an attribute `body`.
    inline = getattr(file, "attributes", {}).get("body") or ""
    name = str(getattr(file, "filename", file) or "")
    return "sphinx-thebe" in name or "THEBE_JS_URL" in inline


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("companion_runs", {}, "env")
    app.add_config_value("companion_stale", {}, "env")
    app.add_directive("companion", CompanionDirective)
    app.add_role("result", ResultRole())
    app.connect("env-before-read-docs", open_book)
    app.connect("source-read", show_run)
    # After the theme (501) has made its buttons.
    app.connect("html-page-context", mend_page, priority=900)
    app.connect("build-finished", tables.write_csv)
    app.connect("build-finished", check_links, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
