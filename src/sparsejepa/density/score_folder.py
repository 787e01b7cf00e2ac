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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.std import tqdm

from sparsejepa.atomic_files import locked, write_with
from sparsejepa.data.decoding import Unreadable, decode_image
from sparsejepa.density.image_source import Source, open_source, readable
from sparsejepa.density.jepa_score import EPS, jepa_score
from sparsejepa.probing.backbones import Backbone, load_backbone
from sparsejepa.randomness import generator

SETTINGS = b"sparsejepa.score"  # key of the settings in a table's metadata
PAUSE = 20.0  # seconds between two writings of the table
SHOWN, SIDE = 24, 128  # images in a group of the contact sheet; longer side of one, pixels
MARK = b"JEPA-SCORE"  # in every contact sheet
COLUMNS = {"path": pa.string(), "score": pa.float64(), "percentile": pa.float64()}
COLUMNS |= dict.fromkeys(("rank", "clipped", "null_directions"), pa.int64())
COLUMNS |= {"note": pa.string(), "sha256": pa.string()}


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
<p>{count:,} images by JEPA-SCORE, the log-volume of the encoder's Jacobian in nats. Only the order
within this page means anything: scores of other encoders are on other scales. Of images that are
not square, the middle is scored.</p>
{sections}
</body>
</html>
"""


@dataclass(frozen=True)
class Row:
    """One image; one that was skipped has no numbers, and a note that says why."""

    path: str  # within the folder; file#row in Parquet, split#row on the Hub
    score: float | None = None  # JEPA-SCORE, nats; higher is more likely
    percentile: float | None = None  # share of scored images with a lower score, 0 to 100
    rank: int | None = None  # singular values of the Jacobian that count: not null, not clipped
    clipped: int | None = None  # those raised to eps
    null_directions: int | None = None  # those left out, the encoder's construction
    note: str = ""  # what was converted, or "skipped: ..."
    sha256: str | None = None  # of the encoded image that was scored


@dataclass(frozen=True)
class Summary:
    """What a call did."""

    rows: list[Row]  # of all images, earlier calls' included
    scored: int  # images that this call scored
    sheet: Path  # the contact sheet


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
    say: Callable[[str], None] = print,
) -> Summary:
    """Scores images that have no score yet, writes the table `out` and its contact sheet.

    The table is written every `PAUSE` seconds, whole or not at all: a killed call goes on when it
    is given again. An image that cannot be decoded gets a row that says why, and is tried again in
    the next call. No score depends on other images.

    Args:
        images, split: as `open_source` takes them.
        backbone, weights: as `load_backbone` takes them.
        limit: only this many images, the first ones; 0 means all.
        batch_size, chunk_size: as `jepa_score`; memory and time only.
        say: called with sentences for the user.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: images, backbone or an earlier table are not
            there, damaged or of other settings; none of the images can be read; too little memory.
    """
    out = out.expanduser()
    if out.suffix.lower() != ".parquet" or out.is_dir():
        raise ValueError(f"The table must be a file whose name ends in .parquet, unlike {out}.")
    sheet = out.with_suffix(".html")
    if sheet.exists() and (sheet.is_dir() or MARK not in sheet.read_bytes()):
        raise ValueError(
            f"{sheet} is no contact sheet of this command, which would replace it: choose another "
            "--out."
        )
    source = open_source(images, split)
    if source.left_out:
        say(source.left_out)
    if isinstance(backbone, str):
        backbone = load_backbone(backbone, weights and weights.expanduser())
    settings = {"images": source.name, **backbone.identity(), "eps": EPS}
    encoder = backbone.embedding().to("cuda" if torch.cuda.is_available() else "cpu")
    with locked(out.with_name(f".{out.name}.lock")):
        rows, nulls = _earlier(out, settings)
        if nulls is None:
            nulls = _null_directions(encoder, backbone.size, chunk_size)
        settings |= {"backbone": backbone.name, "null_directions": nulls}
        options = {"null_directions": nulls, "chunk_size": chunk_size, "batch_size": batch_size}
        found, scored, written = {}, 0, time.monotonic()
        everything = _rows(source, limit, rows, backbone, encoder, options, say)
        try:
            for row, new in everything:
                found[row.path], scored = row, scored + (new and row.score is not None)
                if time.monotonic() - written > PAUSE:
                    _write(out, rows | found, source.paths, settings)
                    written = time.monotonic()
        except BaseException:
            _write(out, rows | found, source.paths, settings)
            raise
        table = _write(out, found, source.paths, settings)
        _write_sheet(sheet, source, backbone, table)
    _report(table, rows.keys() - found.keys(), scored, say)
    return Summary(table, scored, sheet)


def _rows(
    source: Source,
    limit: int,
    earlier: Mapping[str, Row],
    backbone: Backbone,
    encoder: nn.Module,
    options: dict[str, Any],
    say: Callable[[str], None],
) -> Iterator[tuple[Row, bool]]:
    """Rows of the first `limit` images, and of those with a score that still holds; and if new."""
    known = {row.sha256: row for row in earlier.values() if row.score is not None and row.sha256}
    chosen = range(len(source.paths))[: limit or None]
    held = changed = 0
    left: list[int] = []
    for index, path in enumerate(source.paths):
        if index not in chosen and path not in earlier:
            continue
        sha256 = None
        if known:
            try:
                sha256 = hashlib.sha256(source.read(index)).hexdigest()
            except (OSError, Unreadable):
                pass  # its row will say so
        if sha256 in known:
            held += 1
            yield replace(known[sha256], path=path), False
        elif index in chosen:
            changed += path in earlier and earlier[path].score is not None
            left.append(index)
    if held:
        say(f"{held:,} of {len(chosen):,} images have their score already.")
    if changed:
        say(f"{changed:,} images have changed since and are scored again.")
    batch: list[tuple[Row, Tensor]] = []
    for index in tqdm(left, unit="image", desc="JEPA-SCORE"):
        row, pixels = _prepared(source, index, backbone)
        if pixels is None:
            yield row, True
        else:
            batch.append((row, pixels))
        if len(batch) == options["batch_size"]:
            yield from ((row, True) for row in _scored(batch, encoder, options))
            batch = []
    if batch:
        yield from ((row, True) for row in _scored(batch, encoder, options))


def _prepared(
    source: Source, index: int, backbone: Backbone
) -> tuple[Row, Float[Tensor, "3 H W"] | None]:
    path, sha256 = source.paths[index], None
    try:
        encoded = source.read(index)
        sha256 = hashlib.sha256(encoded).hexdigest()
        decoded = decode_image(encoded, min(backbone.size))
    except (OSError, Unreadable) as error:
        reason = f"it cannot be read ({getattr(error, 'strerror', None) or error})"
        reason = str(error) if isinstance(error, Unreadable) else reason
        return Row(path, note=f"skipped: {reason}", sha256=sha256), None
    return Row(path, note=decoded.note, sha256=sha256), backbone.prepare(decoded.image)


def _scored(
    batch: Sequence[tuple[Row, Tensor]], encoder: nn.Module, options: dict[str, Any]
) -> Iterator[Row]:
    try:
        found = jepa_score(encoder, torch.stack([pixels for _, pixels in batch]), **options)
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"A batch of {options['batch_size']} images with {options['chunk_size']} rows of the "
            "Jacobian at once does not fit into the GPU's memory: lower --batch-size or "
            "--chunk-size."
        ) from error
    nulls = found.null_directions
    counted = found.log_spectrum.shape[1] - nulls
    for (row, _), score, clipped in zip(
        batch, found.score.tolist(), found.clipped.tolist(), strict=True
    ):
        if math.isfinite(score):
            numbers = {"rank": counted - clipped, "clipped": clipped, "null_directions": nulls}
            yield replace(row, score=score, **numbers)
        else:
            yield replace(row, note="skipped: its Jacobian is not finite")


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
        rows = [Row(**row) for row in table.to_pylist()]
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
    return {row.path: row for row in rows}, made_with.get("null_directions")


def _write(
    out: Path, rows: Mapping[str, Row], paths: Sequence[str], settings: Mapping[str, Any]
) -> list[Row]:
    """All rows in the order of the paths, with percentiles."""
    known = [rows[path] for path in paths if path in rows]
    scores = sorted(row.score for row in known if row.score is not None)
    below = {score: index for index, score in reversed(list(enumerate(scores)))}
    known = [
        replace(row, percentile=None if row.score is None else 100 * below[row.score] / len(scores))
        for row in known
    ]
    schema = pa.schema(list(COLUMNS.items()), {SETTINGS: json.dumps(settings)})
    table = pa.Table.from_pylist([asdict(row) for row in known], schema)

    def write(temporary: Path) -> None:
        # pyarrow itself refuses names that are not UTF-8.
        with temporary.open("wb") as file:
            pq.write_table(table, file)

    write_with(out, write)
    return known


def _write_sheet(file: Path, source: Source, backbone: Backbone, rows: Sequence[Row]) -> None:
    """The `SHOWN` most and least likely images, each group from the extreme inwards."""
    index = {path: i for i, path in enumerate(source.paths)}
    scored = (row for row in rows if row.score is not None)
    best = sorted(scored, key=lambda row: (-row.score, row.path))
    # Of few images none is in both groups.
    count = min(SHOWN, (len(best) + 1) // 2)
    groups = {"Most likely": best[:count]}
    groups["Least likely"] = best[max(count, len(best) - count) :][::-1]
    sections = ""
    for heading, group in groups.items():
        sections += f"<h2>{heading}, from the extreme inwards</h2>\n<ol>\n"
        for row in group:
            path, note = html.escape(row.path), html.escape(row.note)
            shown = '<div class="gone">can no longer be read</div>'
            if image := _jpeg(source, index[row.path], min(backbone.size)):
                alt = f"{path}: among the {heading.lower()}, score {row.score:.1f} nats"
                shown = f'<img src="data:image/jpeg;base64,{image}" alt="{alt}">'
            caption = f"{path}<br>{row.score:.1f} nats" + (f"<br>{note}" if note else "")
            sections += f"<li><figure>{shown}<figcaption>{caption}</figcaption></figure></li>\n"
        sections += "</ol>\n"
    # Every encoder of ours is called encoder.safetensors; its folder tells it from others.
    encoder = "/".join(Path(readable(backbone.name)).parts[-2:])
    title = html.escape(f"{Path(source.name).name} as {encoder} sees it")
    page = PAGE.format(title=title, count=len(best), sections=sections)
    write_with(file, lambda temporary: temporary.write_text(page, encoding="utf-8"))


def _jpeg(source: Source, index: int, size: int) -> str:
    try:
        image = decode_image(source.read(index), size).image
    except (OSError, Unreadable):
        return ""
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def _report(rows: Sequence[Row], gone: set[str], scored: int, say: Callable[[str], None]) -> None:
    skipped = [row for row in rows if row.score is None]
    changed = sum(row.score is not None and bool(row.note) for row in rows)
    say(
        f"{scored:,} images scored, {len(rows) - len(skipped):,} in all; {changed:,} were "
        f"converted and {len(skipped):,} skipped, as their notes say."
    )
    for row in skipped[:10]:
        say(f"{row.path} was {row.note}.")
    if gone:
        say(f"{len(gone):,} rows of images that are gone or have changed since are dropped.")
    clipped = sum(bool(row.clipped) for row in rows)
    if clipped:
        say(
            f"In {clipped:,} images some singular values were below {EPS:g} and raised to it: the "
            f"score then counts them, each {math.log(EPS):.1f}, more than it weighs the rest."
        )
    if skipped and len(skipped) == len(rows):
        raise ValueError("None of the images could be read; see their notes.")
