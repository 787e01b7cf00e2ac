"""`sparsejepa score`: JEPA-SCORE of every image of a folder, of Parquet files or of a Hub data set.

A row of the table belongs to a content, by its SHA-256, and not to a name: what is replaced under
its name is scored again, what is only renamed is not.
"""

import base64
import contextlib
import hashlib
import html
import io
import json
import math
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.std import tqdm

from sparsejepa.atomic_files import locked, write_with
from sparsejepa.data.decoding import Unreadable, decode_image
from sparsejepa.density.image_source import Images, Source, open_source, readable
from sparsejepa.density.jepa_score import EPS, jepa_score
from sparsejepa.probing.backbones import Backbone, load_backbone
from sparsejepa.randomness import generator

SETTINGS = b"sparsejepa.score"  # key of the settings in a table's metadata
PAUSE = 20.0  # seconds between two writings of the table
SHOWN, SIDE = 24, 128  # images in a group of the contact sheet; longer side of one, pixels
MARK = b"JEPA-SCORE"  # in every contact sheet

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
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.4 system-ui, sans-serif; margin: auto; max-width: 75rem; padding: 1rem; }}
ol {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem;
  list-style: none; padding: 0; }}
figure {{ margin: 0; }}
img {{ width: 100%; aspect-ratio: 1; object-fit: contain; background: #8882; }}
figcaption {{ font-size: .8rem; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{count:,} images by JEPA-SCORE, the log-volume of the encoder's Jacobian in nats. Only the order
within this page means anything: scores of other encoders are on other scales. Of images that are
not square, the middle is scored.</p>
{sections}
</body>
</html>
"""
FIGURE = """<li><figure><img src="data:image/jpeg;base64,{jpeg}" alt="{alt}">
<figcaption>{caption}</figcaption></figure></li>
"""


def score_images(
    images: str,
    backbone: str | Backbone,
    out: Path,
    *,
    weights: Path | None = None,
    split: str = "train",
    limit: int = 0,
    batch_size: int = 4,
    chunk_size: int = 16,
) -> int:
    """Scores images that have no score yet, writes the table `out` and its contact sheet.

    The table is written every `PAUSE` seconds, whole or not at all: a killed call goes on when it
    is given again. An image that cannot be decoded gets a row that says why, and is tried again in
    the next call. No score depends on other images.

    Arguments are as `open_source`, `load_backbone` and `jepa_score` take them; a `limit` above 0
    leaves out all but the first images. Returns how many images this call scored.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: images, backbone or an earlier table are not
            there, damaged or of other settings; none of the images can be read; too little memory.
    """
    out = out.expanduser()
    if out.suffix.lower() != ".parquet" or out.is_dir():
        raise ValueError(f"The table must be a file whose name ends in .parquet, unlike {out}.")
    sheet = out.with_suffix(".html")
    if sheet.exists() and (sheet.is_dir() or MARK not in sheet.read_bytes()):
        raise ValueError(f"{sheet} is no contact sheet of this command: choose another --out.")
    source = open_source(images, split)
    for note in source.notes:
        print(note)
    if isinstance(backbone, str):
        backbone = load_backbone(backbone, weights and weights.expanduser())
    settings = {"images": source.name, **backbone.identity(), "eps": EPS}
    encoder = backbone.embedding().to("cuda" if torch.cuda.is_available() else "cpu")
    options = {"chunk_size": chunk_size, "batch_size": batch_size}
    with locked(out.with_name(f".{out.name}.lock")):
        earlier, nulls = _earlier(out, settings)
        if nulls is None:
            nulls = _null_directions(encoder, backbone.size, chunk_size)
        settings |= {"backbone": backbone.name, "null_directions": nulls}
        found, left = _kept(source.images, limit, earlier)
        held, written = len(found), time.monotonic()
        try:
            for row in _new_rows(left, backbone, encoder, options | {"null_directions": nulls}):
                found[row["path"]] = row
                if time.monotonic() - written > PAUSE:
                    _write(out, earlier | found, source.images, settings)
                    written = time.monotonic()
        except BaseException:
            _write(out, earlier | found, source.images, settings)
            raise
        rows = _write(out, found, source.images, settings)
        _write_sheet(sheet, source, backbone, rows)
    scored = sum(row["score"] is not None for row in rows) - held
    _report(rows, len(earlier.keys() - found.keys()), scored)
    print(f"Scores are in {out}, the contact sheet in {sheet}.")
    return scored


def _kept(images: Images, limit: int, earlier: Mapping[str, Row]) -> tuple[dict[str, Row], Images]:
    """Rows of images whose score still holds, and those of the first `limit` without a score."""
    known = {row["sha256"]: row for row in earlier.values() if row["score"] is not None}
    chosen = set(list(images)[: limit or None])
    kept, left, changed = {}, {}, 0
    for path, read in images.items():
        sha256 = None
        if known and (path in chosen or path in earlier):
            # An image that cannot be read gets a row that says so.
            with contextlib.suppress(OSError, Unreadable):
                sha256 = hashlib.sha256(read()).hexdigest()
        if sha256 in known:
            kept[path] = known[sha256] | {"path": path}
        elif path in chosen:
            changed += path in earlier and earlier[path]["score"] is not None
            left[path] = read
    if kept:
        print(f"{len(kept):,} of {len(chosen):,} images have their score already.")
    if changed:
        print(f"{changed:,} images have changed since and are scored again.")
    return kept, left


def _new_rows(
    images: Images, backbone: Backbone, encoder: nn.Module, options: Mapping[str, Any]
) -> Iterator[Row]:
    batch: list[tuple[Row, Tensor]] = []
    for path, read in tqdm(images.items(), unit="image", desc="JEPA-SCORE"):
        row: Row = dict.fromkeys(SCHEMA.names) | {"path": path}
        try:
            encoded = read()
            row["sha256"] = hashlib.sha256(encoded).hexdigest()
            decoded = decode_image(encoded, min(backbone.size))
            row["note"] = decoded.note
            batch.append((row, backbone.prepare(decoded.image)))
        except Unreadable as error:
            yield row | {"note": f"skipped: {error}"}
        except OSError as error:
            yield row | {"note": f"skipped: it cannot be read ({error.strerror or error})"}
        if len(batch) == options["batch_size"]:
            yield from _scored(batch, encoder, options)
            batch = []
    if batch:
        yield from _scored(batch, encoder, options)


def _scored(
    batch: Sequence[tuple[Row, Tensor]], encoder: nn.Module, options: Mapping[str, Any]
) -> Iterator[Row]:
    try:
        found = jepa_score(encoder, torch.stack([pixels for _, pixels in batch]), **options)
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"{options['batch_size']} images with {options['chunk_size']} rows of the Jacobian at "
            "once do not fit into the GPU's memory: lower --batch-size or --chunk-size."
        ) from error
    nulls, count = found.null_directions, found.log_spectrum.shape[1]
    numbers = zip(batch, found.score.tolist(), found.clipped.tolist(), strict=True)
    for (row, _), score, clipped in numbers:
        if math.isfinite(score):
            cells = {"score": score, "rank": count - nulls - clipped, "clipped": clipped}
            yield row | cells | {"null_directions": nulls}
        else:
            yield row | {"note": "skipped: its Jacobian is not finite"}


def _null_directions(encoder: nn.Module, size: tuple[int, int], chunk_size: int) -> int:
    """Directions that are null by the network's construction, counted on drawn images.

    The fewest at two images of pixel noise and two of smooth colours: real images have the same
    number where a LayerNorm makes them, and drawn ones let no score depend on other images.
    """
    draw = generator(0, "null directions")
    noise = torch.rand(2, 3, *size, generator=draw)
    coarse = torch.rand(2, 3, 4, 4, generator=draw)
    smooth = F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    return jepa_score(encoder, torch.cat([noise, smooth]), chunk_size=chunk_size).null_directions


def _earlier(out: Path, settings: Mapping[str, Any]) -> tuple[dict[str, Row], int | None]:
    """The rows of an earlier call, and its count of null directions."""
    if not out.exists():
        return {}, None
    try:
        with out.open("rb") as file:
            table = pq.read_table(file)
        made_with = json.loads(table.schema.metadata[SETTINGS])
        rows = table.select(SCHEMA.names).to_pylist()
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{out} is damaged or no table of scores, and is left as it is: choose another --out."
        ) from error
    for name, value in settings.items():
        if made_with.get(name, value) != value:
            what = {"images": "of other images", "eps": "with another eps"}
            raise ValueError(
                f"{out} was made {what.get(name, 'by another backbone')} (its {name} is "
                f"{made_with[name]}, now {value}): choose another --out."
            )
    return {row["path"]: row for row in rows}, made_with.get("null_directions")


def _write(
    out: Path, rows: Mapping[str, Row], order: Iterable[str], settings: Mapping[str, Any]
) -> list[Row]:
    """The rows of the paths in `order`, with percentiles."""
    known = [rows[path] for path in order if path in rows]
    scores = sorted(row["score"] for row in known if row["score"] is not None)
    for row in known:
        if row["score"] is not None:
            row["percentile"] = 100 * bisect_left(scores, row["score"]) / len(scores)
    table = pa.Table.from_pylist(known, SCHEMA.with_metadata({SETTINGS: json.dumps(settings)}))

    def write(temporary: Path) -> None:
        # pyarrow itself refuses names that are not UTF-8.
        with temporary.open("wb") as file:
            pq.write_table(table, file)

    write_with(out, write)
    return known


def _write_sheet(file: Path, source: Source, backbone: Backbone, rows: Sequence[Row]) -> None:
    """The `SHOWN` most and least likely images, each group from the extreme inwards."""
    scored = (row for row in rows if row["score"] is not None)
    best = sorted(scored, key=lambda row: (-row["score"], row["path"]))
    # Of few images none is in both groups.
    count = min(SHOWN, (len(best) + 1) // 2)
    groups = {"Most likely": best[:count]}
    groups["Least likely"] = best[max(count, len(best) - count) :][::-1]
    sections = ""
    for heading, group in groups.items():
        sections += f"<h2>{heading}, from the extreme inwards</h2>\n<ol>\n"
        for row in group:
            path, nats = html.escape(row["path"]), f"{row['score']:.1f} nats"
            image, jpeg = source.images[row["path"]](), io.BytesIO()
            shown = decode_image(image, min(backbone.size)).image
            shown.thumbnail((SIDE, SIDE))
            shown.save(jpeg, "JPEG", quality=85)
            caption = "<br>".join(filter(None, [path, nats, html.escape(row["note"])]))
            sections += FIGURE.format(
                jpeg=base64.b64encode(jpeg.getvalue()).decode(),
                alt=f"{path}: among the {heading.lower()}, score {nats}",
                caption=caption,
            )
        sections += "</ol>\n"
    # Every encoder of ours is called encoder.safetensors; its folder tells it from others.
    encoder = "/".join(Path(readable(backbone.name)).parts[-2:])
    title = html.escape(f"{Path(source.name).name} as {encoder} sees it")
    page = PAGE.format(title=title, count=len(best), sections=sections)
    write_with(file, lambda temporary: temporary.write_text(page, encoding="utf-8"))


def _report(rows: Sequence[Row], gone: int, scored: int) -> None:
    skipped = [row for row in rows if row["score"] is None]
    changed = sum(row["score"] is not None and bool(row["note"]) for row in rows)
    print(
        f"{scored:,} images scored, {len(rows) - len(skipped):,} in all; {changed:,} were "
        f"converted and {len(skipped):,} skipped, as their notes say."
    )
    for row in skipped[:10]:
        print(f"{row['path']} was {row['note']}.")
    if gone:
        print(f"{gone:,} rows of images that are gone or have changed since are dropped.")
    if clipped := sum(bool(row["clipped"]) for row in rows):
        print(
            f"In {clipped:,} images some singular values were below {EPS:g} and raised to it: the "
            f"score then counts them, each {math.log(EPS):.1f}, more than it weighs the rest."
        )
    if skipped and len(skipped) == len(rows):
        raise ValueError("None of the images could be read; see their notes.")
