"""The most and least likely images of a set as one HTML page that needs no other file."""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from sparsejepa.atomic_files import write_with
from sparsejepa.density.score_table import ScoredImage, ordered

SIDE = 128  # longer side of a thumbnail, pixels

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.4 system-ui, sans-serif; margin: 1.5rem auto; max-width: 75rem;
  padding: 0 1rem; }}
ol {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem;
  list-style: none; padding: 0; }}
figure {{ margin: 0; }}
img, .gone {{ width: 100%; aspect-ratio: 1; object-fit: contain; background: #8882; }}
.gone {{ display: grid; place-content: center; font-size: .8rem; }}
figcaption {{ font-size: .8rem; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{facts}</p>
{sections}
</body>
</html>
"""


def write_contact_sheet(
    file: Path,
    title: str,
    facts: str,
    rows: Sequence[ScoredImage],
    thumbnail: Callable[[str], Image.Image | None],
    count: int = 24,
) -> None:
    """Writes the `count` most and least likely images, each group from the extreme inwards.

    Args:
        thumbnail: an RGB image by its path; None if it cannot be shown, which its place then says.

    Raises:
        OSError: the file cannot be written.
    """
    best = ordered(rows)
    # Of few images none is in both groups.
    count = min(count, (len(best) + 1) // 2)
    groups: Mapping[str, Sequence[ScoredImage]] = {
        "Most likely, the likeliest first": best[:count],
        "Least likely, the least likely first": best[max(count, len(best) - count) :][::-1],
    }
    sections = "\n".join(
        f"<h2>{html.escape(heading)}</h2>\n<ol>\n"
        + "\n".join(_item(row, heading, thumbnail(row.path)) for row in group)
        + "\n</ol>"
        for heading, group in groups.items()
    )
    page = PAGE.format(title=html.escape(title), facts=html.escape(facts), sections=sections)
    write_with(file, lambda temporary: temporary.write_text(page, encoding="utf-8"))


def _item(row: ScoredImage, heading: str, image: Image.Image | None) -> str:
    path, note = html.escape(row.path), html.escape(row.note)
    kind = heading.split(",")[0].lower()
    alt = f"{path}: among the {kind}, score {row.score:.1f} nats"
    if image is None:
        shown = '<div class="gone">can no longer be read</div>'
    else:
        shown = f'<img src="data:image/jpeg;base64,{_jpeg(image)}" alt="{alt}">'
    caption = f"{path}<br>{row.score:.1f} nats" + (f"<br>{note}" if note else "")
    return f"<li><figure>{shown}<figcaption>{caption}</figcaption></figure></li>"


def _jpeg(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()
