"""The provenance card: what a run was made from, as MyST Markdown."""

import json
from collections.abc import Mapping
from typing import Any

from companion_files import Run
from companion_markdown import code, dropdown, list_table, text


def provenance_card(run: Run, manifest: Mapping[str, Any]) -> str:
    """The card at the head of a page of results.

    Args:
        manifest: the run's manifest.json; what it lacks is shown as unknown.
    """
    files = [f"{{download}}`{name} <{run.document(name)}>`" for name in run_files(run)]
    rows = [
        ("Run", code(run.id)),
        ("Preset", code(manifest.get("preset", "unknown"))),
        ("Made", f"{made(manifest)}, from commit {commit(manifest.get('commit', 'unknown'))}"),
        ("Seed", text(manifest.get("seed", "unknown"))),
        ("Data", "; ".join(data_set(entry) for entry in data_sets(manifest.get("data", [])))),
        ("Hardware", hardware(manifest.get("hardware", {}))),
        ("Precision", code(manifest.get("precision", "unknown"))),
        ("Time", wall_time(manifest)),
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


def run_files(run: Run) -> list[str]:
    """The files that the card offers for download, those that there are."""
    names = ["results.json", "manifest.json", "encoder.safetensors"]
    return [name for name in names if (run.folder / name).is_file()]


def made(manifest: Mapping[str, Any]) -> str:
    """Day and minute in UTC."""
    started = str(manifest.get("started_utc", "unknown"))
    day, _, clock = started.partition("T")
    return text(f"{day} {clock[:5]} UTC" if clock else started)


def commit(name: str) -> str:
    """The commit, shortened, and whether files differed from it."""
    bare = name.removesuffix("-dirty")
    changed = " with uncommitted changes" if bare != name else ""
    return f"{code(bare[:12])}{changed}"


def data_sets(data: Any) -> list[Mapping[str, Any]]:
    """A manifest names one image set, or several in a list."""
    return [data] if isinstance(data, Mapping) else list(data)


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


def wall_time(manifest: Mapping[str, Any]) -> str:
    """How long the whole notebook took, and how much memory."""
    seconds = manifest.get("wall_seconds")
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    shown = f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
    if manifest.get("resumed"):
        shown += " since it was resumed, more in all"
    if manifest.get("peak_memory_gb"):
        shown += f", at most {manifest['peak_memory_gb']:.1f} GB of memory"
    return text(shown)


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
