"""The table of methods, from the library's own notes on them."""

from companion_markdown import code, list_table, text
from sparsejepa.model.method_notes import NOTES


def methods_table() -> str:
    """One row a method: name for `-p method=…`, what it changes, what gets sparse, where from."""
    header = ("Method", "Name", "What it changes of JEPA", "What is sparse", "Source")
    rows = [
        (
            text(note.title),
            code(name),
            text(note.change),
            text(note.sparsity),
            f"{text(note.source)} [{note.mark}]{{.mark .mark-{note.mark}}}",
        )
        for name, note in NOTES.items()
    ]
    return list_table([header, *rows], header=True, classes="scorecard")
