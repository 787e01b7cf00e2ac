"""A run at a glance, and its provenance card, as MyST Markdown."""

import json
from collections.abc import Mapping
from typing import Any

from companion_book import RUNS, Book
from companion_claims import chip
from companion_markdown import code, command_block, dropdown, list_table, text
from sparsejepa.companion.manifest import certificate_of

Facts = Mapping[str, Any]  # of a run, see `Book.facts`; what it lacks is shown as unknown
# Parameters that say how large a study is.
_SIZES = ("method", "seed", "seeds", "epochs", "steps", "width", "depth")


def at_a_glance(book: Book, run: str, facts: Facts) -> str:
    """What a page asks and how it came out, in one table at its head."""
    chapter = book.chapters.get(run.split("/")[1], {})
    rows = [
        ("Question", chapter.get("question", "")),
        ("Scope", scope(facts)),
        ("Hardware", hardware(facts.get("hardware", {}))),
        ("Time", wall_time(facts["timing"])),
        ("Outcome", outcome(book, run)),
        ("Distance from the paper's own setting", chapter.get("distance", "")),
    ]
    return list_table([row for row in rows if row[1]], classes="at-a-glance")


def scope(facts: Facts) -> str:
    """Data, inputs and sizes."""
    sets = [" ".join((entry["name"], entry["split"])) for entry in facts.get("data", [])]
    given, needs = facts.get("parameters", {}), facts.get("needs", {})
    inputs = [f"{len(needs)} finished runs as input"] if needs else []
    sizes = [f"{name} {given[name]}" for name in _SIZES if name in given]
    return text("; ".join(map(", ".join, filter(None, (sets, inputs, sizes)))))


def outcome(book: Book, run: str) -> str:
    """Verdicts of the claims that rest on this notebook, from the ledger."""
    try:
        resting = [j for j in book.judgements if j.claim.notebook == run.split("/")[1]]
    except (FileNotFoundError, ValueError):
        return ""  # the pages of the ledger say so
    tested = [j for j in resting if j.runs]
    lines = [f"- {chip(j.verdict)} {{ref}}`{j.claim.title} <claim-{j.claim.id}>`" for j in tested]
    if planned := len(resting) - len(tested):
        lines.append(f"- {planned} more {{doc}}`planned </book/scorecard>`, without a run yet")
    # A list within a cell of a table.
    return "\n    ".join(lines)


def provenance_card(book: Book, run: str, facts: Facts) -> str:
    """What a run was made from."""
    rows = [
        ("Run", code(run)),
        ("Made", f"{made(facts)}, by the code of commit {commit(facts)}"),
        ("Code", text(code_line(book, run))),
        ("Seed", text(facts.get("seed", "unknown"))),
        ("Data", "; ".join(map(data_set, facts.get("data", [])))),
        ("Precision", code(facts.get("precision", "unknown"))),
        ("Files", files(book, run, facts)),
    ]
    parts = [
        "::::::{dropdown} Where this comes from\n:class-container: run-card\n",
        list_table(rows),
        dropdown("Effective parameters", values_table(facts.get("parameters", {}))),
        dropdown("Versions", values_table(facts.get("versions", {}))),
        "\nMake it again:\n",
        command_block(str(facts.get("command", "unknown"))),
        "::::::",
    ]
    return "\n".join(parts)


def files(book: Book, run: str, facts: Facts) -> str:
    """Links to the run's files, and of a pretraining to its weights; Sphinx copies them."""
    paths = [f"{run}/{name}" for name in ("results.json", "manifest.json")]
    if "/01_pretrain/" in run:
        paths += [f"{place}/encoder.safetensors" for place in facts.get("trainings", {})]
    there = [path for path in paths if (book.runs_root / path).is_file()]
    return ", ".join(f"{{download}}`{p.rpartition('/')[2]} </{RUNS}/{p}>`" for p in there)


def code_line(book: Book, run: str) -> str:
    """What has changed of the code since the run, and what was compared."""
    try:
        found = certificate_of(book.root, run)
    except ValueError as error:
        return str(error)
    if found is None:
        return "changed since" if book.stale(run) else "unchanged since"
    compared = found["compared"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (
        f"{found['changed']} files have changed since; certified on {found['date']}: "
        f"{compared['tensors']} tensors and {compared['numbers']} numbers of a size-reduced copy "
        f"are equal to the bit ({versions})"
    )


def made(facts: Facts) -> str:
    """Day and time in UTC."""
    return text(facts["timing"].get("started_utc", "unknown").replace("T", " "))


def commit(facts: Facts) -> str:
    """Shortened, and whether files differed from it."""
    name, dirty, _ = str(facts.get("commit", "unknown")).partition("-dirty")
    return code(name[:12]) + (" with uncommitted changes" if dirty else "")


def data_set(entry: Mapping[str, Any]) -> str:
    """Name, split, where from, and the start of the hash of the decoded pixels."""
    digest = code(entry["pixel_sha256"][:12] + "…")
    return f"{code(entry['name'])} {entry['split']}, {text(entry['origin'])}, pixels {digest}"


def hardware(known: Mapping[str, Any]) -> str:
    """Processor, cores and threads, GPUs, system."""
    parts = [known.get("cpu", "unknown processor"), f"cores: {known.get('cores', '?')}"]
    parts += [f"threads: {known.get('threads', '?')}", *(known.get("gpus") or ["no GPU"])]
    return text(", ".join([*parts, known.get("system", "unknown system")]))


def wall_time(timing: Mapping[str, Any]) -> str:
    """Of the notebook, of all trainings that it shows, and how much memory."""
    shown = [f"{timing.get('notebook_seconds', 0) / 60:.1f} min for the notebook"]
    if seconds := timing.get("training_seconds"):
        shown.append(f"{seconds / 60:.1f} min of training, kept or made in it")
    if speed := timing.get("results", {}).get("images_per_second"):
        shown.append(f"{speed:,.0f} training images a second")
    if memory := timing.get("peak_memory_gb"):
        shown.append(f"at most {memory:.1f} GB of memory")
    return text("; ".join(shown)) if timing else "unknown"


def values_table(values: Mapping[str, Any]) -> str:
    """Names and values as they are in JSON."""
    rows = [(code(k), code(v if isinstance(v, str) else json.dumps(v))) for k, v in values.items()]
    return list_table(rows) if rows else "None are recorded."
