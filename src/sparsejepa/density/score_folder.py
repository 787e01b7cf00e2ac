"""`sparsejepa score`: JEPA-SCORE of every image of a folder, of Parquet files or of a Hub data set.

A row of the table belongs to a content, by its SHA-256, and not to a name: what is replaced under
its name is scored again, what is only renamed is not.
"""

import base64
import hashlib
import html
import io
import json
import math
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from tqdm.std import tqdm

from sparsejepa.atomic_files import locked, write_atomically
from sparsejepa.data.decoding import decode_image
from sparsejepa.density.image_source import Images, open_source, readable
from sparsejepa.density.jepa_score import EPS, jepa_score
from sparsejepa.probing.backbones import Backbone, load_backbone

SETTINGS = b"sparsejepa.score"  # key of the settings in a table's metadata
PAUSE = 20.0  # seconds between two writings of the table
FIRST = 4  # images on which null directions are counted
SHOWN, SIDE = 24, 128  # images in a group of the contact sheet; longer side of one, pixels
MARK = "JEPA-SCORE"  # in every contact sheet

Row = dict[str, Any]  # of one image; one that was skipped has no numbers, and its note says why
SCHEMA = pa.schema(
    {
        "path": pa.string(),  # within the folder; file#row in Parquet, split#row on the Hub
        "score": pa.float64(),  # JEPA-SCORE, nats; higher is more likely
        "percentile": pa.float64(),  # share of scored images with a lower score, 0 to 100
        "rank": pa.int64(),  # singular values of the Jacobian that count: not null, not clipped
        "clipped": pa.int64(),  # those raised to eps
        "null_directions": pa.int64(),  # those left out, the encoder's construction
        "note": pa.string(),  # what was converted, or "skipped: ..."
        "sha256": pa.string(),  # of the encoded image that was scored
    }
)

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }}
ol {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem;
  list-style: none; padding: 0; }}
figure {{ margin: 0; }}
img {{ width: 100%; aspect-ratio: 1; object-fit: contain; background: #8882; }}
figcaption {{ font-size: .8rem; overflow-wrap: anywhere; }}
</style>
<h1>{title}</h1>
<p>{count:,} images by JEPA-SCORE, the log-volume of the encoder's Jacobian in nats. Only the order
within this page means anything: scores of other encoders are on other scales. Of images that are
not square, the middle is scored.</p>
"""


def score_images(
    images: str,
    backbone: str | Backbone,
    out: Path,
    *,
    weights: Path | None = None,
    split: str = "train",
    limit: int = 0,
    **options: int,
) -> int:
    """Scores images that have no score yet, writes the table `out` and its contact sheet.

    The table is written every `PAUSE` seconds, whole or not at all: a killed call goes on when it
    is given again. An image that cannot be decoded gets a row that says why, and is tried again in
    the next call. Null directions are counted once for a table, on the first images it can score.
    Arguments are those of `open_source`, `load_backbone` and, as `options`, `jepa_score`; a `limit`
    above 0 leaves out all but the first images. Returns how many images this call scored.

    Raises FileNotFoundError, ConnectionError or ValueError: images, backbone or an earlier table
    are not there, damaged or of other settings; no image can be read; too little memory.
    """
    out = out.expanduser()
    if out.suffix.lower() != ".parquet" or out.is_dir():
        raise ValueError(f"The table must be a file whose name ends in .parquet, unlike {out}.")
    sheet = out.with_suffix(".html")
    if sheet.exists() and (sheet.is_dir() or MARK.encode() not in sheet.read_bytes()):
        raise ValueError(f"{sheet} is no contact sheet of this command: choose another --out.")
    place, readers = open_source(images, split)
    if isinstance(backbone, str):
        backbone = load_backbone(backbone, weights and weights.expanduser())
    settings = {"images": place, **backbone.identity(), "eps": EPS}
    with locked(out.with_name(f".{out.name}.lock")):
        found = _earlier(out, settings)
        settings["backbone"] = backbone.name
        scored = {row["sha256"]: row for row in found.values() if row["score"] is not None}
        kept = {*list(readers)[: limit or None], *found}
        chosen = {path: read for path, read in readers.items() if path in kept}
        count, written = 0, time.monotonic()
        try:
            for row in _rows(chosen, scored, backbone, settings, **options):
                found[row["path"]] = row
                count += row["score"] is not None and row["sha256"] not in scored
                if time.monotonic() - written > PAUSE:
                    _write(out, found, readers, settings)
                    written = time.monotonic()
        finally:
            rows = _write(out, found, readers, settings)
        # Every encoder of ours is called encoder.safetensors; its folder tells it from others.
        encoder = "/".join(Path(readable(backbone.name)).parts[-2:])
        title = f"{Path(place).name} as {encoder} sees it"
        write_atomically(sheet, _sheet(title, rows, readers, min(backbone.size)).encode())
    _report(rows, count)
    print(f"Scores are in {out}, the contact sheet in {sheet}.")
    return count


def _rows(
    images: Images, scored: Mapping[str, Row], backbone: Backbone, settings: Row, **options: int
) -> Iterator[Row]:
    """A row for every image: that of its content in `scored`, or a new one."""
    encoder = backbone.embedding().to("cuda" if torch.cuda.is_available() else "cpu")
    waiting: list[tuple[Row, Tensor]] = []
    for path, read in tqdm(images.items(), unit="image", desc=MARK):
        row: Row = dict.fromkeys(SCHEMA.names) | {"path": path}
        try:
            encoded = read()
            row["sha256"] = hashlib.sha256(encoded).hexdigest()
            if row["sha256"] in scored:
                yield scored[row["sha256"]] | {"path": path}
            else:
                image, row["note"] = decode_image(encoded, min(backbone.size))
                waiting.append((row, backbone.prepare(image)))
        except (OSError, ValueError) as error:
            yield row | {"note": f"skipped: {error}"}
        if len(waiting) == max(FIRST, options.get("batch_size", 0)):
            yield from _scored(waiting, encoder, settings, **options)
            waiting = []
    if waiting:
        yield from _scored(waiting, encoder, settings, **options)


def _scored(
    waiting: list[tuple[Row, Tensor]], encoder: nn.Module, settings: Row, **options: int
) -> Iterator[Row]:
    """The rows with their numbers; the first ones of a table set its number of null directions."""
    rows, pixels = zip(*waiting, strict=True)
    nulls = settings.get("null_directions")
    try:
        found = jepa_score(encoder, torch.stack(pixels), null_directions=nulls, **options)
    except torch.OutOfMemoryError as error:
        advice = "lower --batch-size or --chunk-size"
        raise ValueError(f"The Jacobians do not fit into the GPU's memory: {advice}.") from error
    nulls = {"null_directions": found.null_directions}
    count = found.log_spectrum.shape[1] - found.null_directions
    for row, score, clipped in zip(rows, found.score.tolist(), found.clipped.tolist(), strict=True):
        if math.isfinite(score):
            settings |= nulls
            yield row | nulls | {"score": score, "rank": count - clipped, "clipped": clipped}
        else:
            yield row | {"note": "skipped: its Jacobian is not finite"}


def _earlier(out: Path, settings: Row) -> dict[str, Row]:
    """The rows of an earlier call; its number of null directions becomes one of the settings."""
    if not out.exists():
        return {}
    try:
        table = pq.read_table(io.BytesIO(out.read_bytes()))
        made_with = json.loads(table.schema.metadata[SETTINGS])
        found = {row["path"]: row for row in table.select(SCHEMA.names).to_pylist()}
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        what = f"{out} is damaged or no table of scores, and is left as it is"
        raise ValueError(f"{what}: choose another --out.") from error
    for name, value in settings.items():
        if made_with.get(name, value) != value:
            raise ValueError(
                f"{out} was made of other images or by another backbone (its {name} is "
                f"{made_with[name]}, now {value}): choose another --out."
            )
    settings["null_directions"] = made_with.get("null_directions")
    return found


def _write(out: Path, found: Mapping[str, Row], order: Images, settings: Row) -> list[Row]:
    """The rows of the paths in `order`, with percentiles, as they are in the table."""
    rows = [found[path] for path in order if path in found]
    scores = sorted(row["score"] for row in rows if row["score"] is not None)
    for row in rows:
        if row["score"] is not None:
            row["percentile"] = 100 * bisect_left(scores, row["score"]) / len(scores)
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata({SETTINGS: json.dumps(settings)}))
    content = io.BytesIO()
    pq.write_table(table, content)
    write_atomically(out, content.getvalue())
    return rows


def _sheet(title: str, rows: Sequence[Row], images: Images, size: int) -> str:
    """A page of the `SHOWN` most and least likely images, each group from the extreme inwards."""
    scored = (row for row in rows if row["score"] is not None)
    best = sorted(scored, key=lambda row: (-row["score"], row["path"]))
    # Of few images none is in both groups.
    count = min(SHOWN, (len(best) + 1) // 2)
    page = PAGE.format(title=html.escape(title), count=len(best))
    for heading, group in (("Most", best[:count]), ("Least", best[count:][-count:][::-1])):
        page += f"<h2>{heading} likely, from the extreme inwards</h2>\n<ol>\n"
        for row in group:
            shown, jpeg = decode_image(images[row["path"]](), size).image, io.BytesIO()
            shown.thumbnail((SIDE, SIDE))
            shown.save(jpeg, "JPEG", quality=85)
            source = f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
            path, nats = html.escape(row["path"]), f"{row['score']:.1f} nats"
            alt = f"{path}: among the {heading.lower()} likely, score {nats}"
            caption = "<br>".join(filter(None, [path, nats, html.escape(row["note"])]))
            page += f'<li><figure><img src="{source}" alt="{alt}">\n<figcaption>{caption}'
            page += "</figcaption></figure></li>\n"
        page += "</ol>\n"
    return page


def _report(rows: Sequence[Row], count: int) -> None:
    skipped = [row for row in rows if row["score"] is None]
    converted = sum(bool(row["note"]) for row in rows) - len(skipped)
    print(f"{count:,} images scored, {len(rows) - len(skipped):,} in all;", end=" ")
    print(f"{converted:,} were converted and {len(skipped):,} skipped, as their notes say.")
    for row in skipped[:10]:
        print(f"{row['path']} was {row['note']}.")
    if clipped := sum(bool(row["clipped"]) for row in rows):
        print(f"{clipped:,} images have singular values that were raised to {EPS:g}.")
    if skipped and len(skipped) == len(rows):
        raise ValueError("None of the images could be read; see their notes.")
