"""The provenance card: what a run was made from, as MyST Markdown."""

import json
from collections.abc import Mapping
from typing import Any

from companion_files import RUNS, Run, certificate_line
from companion_markdown import code, dropdown, list_table, text


def provenance_card(run: Run, manifest: Mapping[str, Any]) -> str:
    """The card at the head of a page of results.

    Args:
        manifest: the run's manifest.json; what it lacks is shown as unknown.
    """
    timing = timing_of(run)
    files = [f"{{download}}`{n} </{address}>`" for n, address in run_files(run, manifest).items()]
    rows = [
        ("Run", code(run.id)),
        ("Preset", code(manifest.get("preset", "unknown"))),
        (
            "Made",
            f"{made(timing)}, by the code of commit {commit(manifest.get('commit', 'unknown'))}",
        ),
        ("Code", text(certificate_line(run, manifest))),
        ("Seed", text(manifest.get("seed", "unknown"))),
        ("Data", "; ".join(data_set(entry) for entry in manifest.get("data", []))),
        ("Hardware", hardware(manifest.get("hardware", {}))),
        ("Precision", code(manifest.get("precision", "unknown"))),
        ("Time", wall_time(timing)),
        ("Files", ", ".join(files)),
    ]
    parts = [
        "::::::{card} Where this comes from\n:class-card: run-card",
        list_table(rows),
        dropdown("Effective parameters", values_table(manifest.get("parameters", {}))),
        dropdown("Versions", values_table(manifest.get("versions", {}))),
        "Make it again:",
        command_block(str(manifest.get("command", "unknown"))),
        "::::::",
    ]
    return "\n\n".join(parts)


def run_files(run: Run, manifest: Mapping[str, Any]) -> dict[str, str]:
    """The files that the card offers for download, those that there are, by what it calls them."""
    found = {name: f"{RUNS}/{run.id}/{name}" for name in ("results.json", "manifest.json")}
    for place in manifest.get("trainings", {}) if run.notebook == "01_pretrain" else ():
        for name in ("encoder.safetensors", "training.json"):
            found[name] = f"{RUNS}/{place}/{name}"
    return {name: address for name, address in found.items() if (run.root / address).is_file()}


def timing_of(run: Run) -> dict[str, Any]:
    """The run's timing.json, {} where it has none."""
    try:
        return run.read("timing.json")
    except (FileNotFoundError, ValueError):
        return {}


def made(timing: Mapping[str, Any]) -> str:
    """Day and minute in UTC."""
    started = str(timing.get("started_utc", "unknown"))
    day, _, clock = started.partition("T")
    return text(f"{day} {clock[:5]} UTC" if clock else started)


def commit(name: str) -> str:
    """The commit, shortened, and whether files differed from it."""
    bare = name.removesuffix("-dirty")
    changed = " with uncommitted changes" if bare != name else ""
    return f"{code(bare[:12])}{changed}"


def data_set(entry: Mapping[str, Any]) -> str:
    """Name, split, where from, and the start of the hash of the decoded pixels."""
    name = " ".join(str(entry[key]) for key in ("name", "split") if key in entry)
    digest = str(entry.get("pixel_sha256", "unknown"))[:12]
    origin = text(entry.get("origin", "of unknown origin"))
    return f"{code(name)}, {origin}, pixels SHA-256 {code(digest + '…')}"


def hardware(facts: Mapping[str, Any]) -> str:
    """Processor, cores and threads, GPUs, system."""
    gpus = facts.get("gpus") or []
    parts = [
        str(facts.get("cpu", "unknown processor")),
        f"{facts.get('cores', '?')} cores",
        *([f"{facts['threads']} threads"] if "threads" in facts else []),
        ", ".join(gpus) if gpus else "no GPU",
        *([str(facts["system"])] if "system" in facts else []),
    ]
    return text(", ".join(parts))


def wall_time(timing: Mapping[str, Any]) -> str:
    """How long all trainings took that the run shows, how long its notebook, how much memory."""
    if "notebook_seconds" not in timing:
        return "unknown"
    shown = f"{duration(timing['notebook_seconds'])} for the notebook"
    if timing.get("training_seconds"):
        shown += f"; {duration(timing['training_seconds'])} of training, kept or made in it"
    if timing.get("peak_memory_gb"):
        shown += f"; at most {timing['peak_memory_gb']:.1f} GB of memory"
    return text(shown)


def duration(seconds: float) -> str:
    """As "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def values_table(values: Mapping[str, Any]) -> str:
    """Names and values as they are in JSON."""
    if not values:
        return "None are recorded."
    rows = [
        (code(name), code(value if isinstance(value, str) else json.dumps(value)))
        for name, value in values.items()
    ]
    return list_table(rows)


def command_block(command: str) -> str:
    """A command as a block of its own, whatever it holds."""
    fence = "```"
    while fence in command:
        fence += "`"
    return f"{fence}bash\n{command}\n{fence}"
