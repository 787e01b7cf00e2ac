"""`sparsejepa score`: JEPA-SCORE of every image of a folder, a Parquet file or a Hub data set."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm.std import tqdm

from sparsejepa.companion.attempts import only_one
from sparsejepa.density.contact_sheet import write_contact_sheet
from sparsejepa.density.decoding import Unreadable, decode_image
from sparsejepa.density.image_source import Source, open_source
from sparsejepa.density.jepa_score import EPS, jepa_score
from sparsejepa.density.score_table import ScoredImage, ScoreTable
from sparsejepa.density.scored_backbone import ScoredBackbone, scored_backbone

# Images from which the encoder's structural null directions are counted.
PROBED = 4


@dataclass(frozen=True)
class Summary:
    """What a call did."""

    rows: list[ScoredImage]  # of all images, earlier calls' included
    scored: int  # images that this call scored
    sheet: Path  # the contact sheet


def score_images(
    images: str,
    backbone: str,
    out: Path,
    *,
    split: str = "train",
    limit: int = 0,
    batch_size: int = 4,
    chunk_size: int = 16,
    part_seconds: float = 20.0,
    say: Callable[[str], None] = print,
) -> Summary:
    """Scores images that have no row yet and writes `out` and its contact sheet.

    A killed call loses the rows of its last `part_seconds` at most; the same call goes on. An
    image that cannot be decoded is skipped, with a row that says why.

    Args:
        images, split: as `open_source` takes them.
        backbone: as `scored_backbone` takes it.
        limit: only this many images, the first ones; 0 means all.
        batch_size, chunk_size: as `jepa_score`; memory and time only.
        say: called with sentences for the user.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: images, backbone or an earlier table are not
            there, damaged or of other settings; none of the images can be read; too little memory.
    """
    if limit < 0:
        raise ValueError(f"limit must be 0 (all) or a number of images, not {limit}.")
    if out.suffix.lower() != ".parquet" or out.is_dir():
        raise ValueError(f"The table must be a file whose name ends in .parquet, unlike {out}.")
    source = open_source(images, split)
    if source.left_out:
        say(source.left_out)
    chosen = range(len(source.paths))[: limit or None]
    network = scored_backbone(backbone)
    network.encoder.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    with only_one(out.with_name(f"{out.name}.parts")):
        table = ScoreTable(
            out,
            {
                "images": source.name,
                "backbone": network.name,
                "weights": network.sha256,
                "size": network.size,
                "eps": EPS,
            },
        )
        left = [index for index in chosen if source.paths[index] not in table.rows]
        if len(left) < len(chosen):
            say(f"{len(chosen) - len(left):,} of {len(chosen):,} images have their row already.")
        try:
            scored = _score(source, left, network, table, batch_size, chunk_size, part_seconds)
        finally:
            table.flush()
        rows = table.finish(source.paths)
        sheet = out.with_suffix(".html")
        _write_sheet(sheet, source, network, rows)
    _report(rows, scored, say)
    return Summary(rows, scored, sheet)


def _score(
    source: Source,
    left: Sequence[int],
    network: ScoredBackbone,
    table: ScoreTable,
    batch_size: int,
    chunk_size: int,
    part_seconds: float,
) -> int:
    """Scores the images `left` into the table; how many were scored."""
    null_directions = _null_directions(table)
    written, scored = time.monotonic(), 0
    with tqdm(total=len(left), unit="image", desc="JEPA-SCORE") as progress:
        # The first batch is larger if need be: a direction is structural if no image moves it.
        first = batch_size if null_directions is not None else max(batch_size, PROBED)
        for decoded, skipped in _batches(source, left, network, first, batch_size):
            table.add(skipped)
            if decoded:
                rows = _rows(decoded, network, null_directions, batch_size, chunk_size)
                table.add(rows)
                null_directions = _null_directions(table)
                scored += sum(row.score is not None for row in rows)
            progress.update(len(decoded) + len(skipped))
            if time.monotonic() - written >= part_seconds:
                table.flush()
                written = time.monotonic()
    return scored


def _null_directions(table: ScoreTable) -> int | None:
    """The count that all rows share; None while no image is scored."""
    return next((row.null_directions for row in table.rows.values() if row.rank is not None), None)


def _batches(
    source: Source, left: Sequence[int], network: ScoredBackbone, first: int, later: int
) -> Iterator[tuple[list[tuple[str, str, Tensor]], list[ScoredImage]]]:
    """Batches of (path, note, pixels), each with the rows of the images skipped on the way."""
    decoded: list[tuple[str, str, Tensor]] = []
    skipped: list[ScoredImage] = []
    size = first
    for index in left:
        path = source.paths[index]
        try:
            found = decode_image(_read(source, index), network.size)
            decoded.append((path, found.note, network.prepare(found.image)))
        except Unreadable as error:
            skipped.append(ScoredImage(path, note=f"skipped: {error}"))
        if len(decoded) == size:
            yield decoded, skipped
            decoded, skipped, size = [], [], later
    if decoded or skipped:
        yield decoded, skipped


def _read(source: Source, index: int) -> bytes:
    try:
        encoded = source.read(index)
    except OSError as error:
        raise Unreadable(f"it cannot be read ({error.strerror or error})") from error
    if not encoded:
        raise Unreadable("it is empty")
    return encoded


def _rows(
    decoded: Sequence[tuple[str, str, Tensor]],
    network: ScoredBackbone,
    null_directions: int | None,
    batch_size: int,
    chunk_size: int,
) -> list[ScoredImage]:
    paths, notes, pixels = zip(*decoded, strict=True)
    try:
        found = jepa_score(
            network.encoder,
            torch.stack(pixels),
            null_directions=null_directions,
            chunk_size=chunk_size,
            batch_size=batch_size,
        )
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"A batch of {batch_size} images with {chunk_size} rows of the Jacobian at once does "
            "not fit into the GPU's memory: lower --batch-size or --chunk-size."
        ) from error
    counted = found.log_spectrum.shape[1] - found.null_directions
    return [
        ScoredImage(path, score, None, counted - clipped, clipped, found.null_directions, note)
        if math.isfinite(score)
        else ScoredImage(path, note="skipped: its Jacobian is not finite")
        for path, note, score, clipped in zip(
            paths, notes, found.score.tolist(), found.clipped.tolist(), strict=True
        )
    ]


def _write_sheet(
    file: Path, source: Source, network: ScoredBackbone, rows: Sequence[ScoredImage]
) -> None:
    index = {path: i for i, path in enumerate(source.paths)}
    here = [row for row in rows if row.path in index]

    def thumbnail(path: str) -> Image.Image:
        return decode_image(_read(source, index[path]), network.size).image

    count = sum(row.score is not None for row in here)
    # Every encoder of ours is called encoder.safetensors; its folder tells it from others.
    encoder = "/".join(Path(network.name).parts[-2:])
    write_contact_sheet(
        file,
        f"{Path(source.name).name} as {encoder} sees it",
        f"{count:,} images by JEPA-SCORE, the log-volume of the encoder's Jacobian in nats. Only "
        "the order within this page means anything: scores of other encoders are on other scales. "
        "Of images that are not square, the middle is scored.",
        here,
        thumbnail,
    )


def _report(rows: Sequence[ScoredImage], scored: int, say: Callable[[str], None]) -> None:
    skipped = [row for row in rows if row.score is None]
    changed = sum(row.score is not None and bool(row.note) for row in rows)
    say(
        f"{scored:,} images scored, {len(rows) - len(skipped):,} in all; {changed:,} were "
        f"converted and {len(skipped):,} skipped, as their notes say."
    )
    for row in skipped[:10]:
        say(f"{row.path} was {row.note}.")
    clipped = sum(bool(row.clipped) for row in rows)
    if clipped:
        say(
            f"In {clipped:,} images some singular values were below {EPS:g} and raised to it: the "
            f"score then counts them, each {math.log(EPS):.1f}, more than it weighs the rest."
        )
    if skipped and len(skipped) == len(rows):
        raise ValueError("None of the images could be read; see their notes.")
