"""`sparsejepa score`: JEPA-SCORE of every image of a folder, a Parquet file or a Hub data set."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from tqdm.std import tqdm

from sparsejepa.companion.attempts import only_one
from sparsejepa.density.contact_sheet import write_contact_sheet
from sparsejepa.density.decoding import Unreadable
from sparsejepa.density.image_source import open_source
from sparsejepa.density.jepa_score import EPS
from sparsejepa.density.score_table import ScoredImage, ScoreTable
from sparsejepa.density.scored_backbone import scored_backbone
from sparsejepa.density.scored_rows import RowMaker, known_nulls


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
    """Scores images that have no score yet and writes `out` and its contact sheet.

    A killed call loses the rows of its last `part_seconds` at most; the same call goes on. An
    image that cannot be decoded is skipped, with a row that says why; the next call tries again.
    Scores are those of a single call: if images have come whose first ones show another count of
    null directions, all are scored again.

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
        known = sum(_has_score(table, source.paths[index]) for index in chosen)
        if known:
            say(f"{known:,} of {len(chosen):,} images have their score already.")
        maker = RowMaker(source, network, batch_size, chunk_size)
        try:
            scored = _score(maker, chosen, table, part_seconds, say)
        finally:
            table.flush()
        rows = table.finish(source.paths)
        sheet = out.with_suffix(".html")
        _write_sheet(sheet, maker, rows)
    _report(rows, scored, say)
    return Summary(rows, scored, sheet)


def _score(
    maker: RowMaker,
    chosen: range,
    table: ScoreTable,
    part_seconds: float,
    say: Callable[[str], None],
) -> int:
    """Puts the rows that are missing into the table; how many images were scored."""
    paths = maker.source.paths
    first: dict[str, ScoredImage] = {}
    written, scored = time.monotonic(), 0
    with tqdm(total=len(chosen), unit="image", desc="JEPA-SCORE") as progress:
        nulls = known_nulls(paths, table.rows)
        if nulls is None:
            first = {row.path: row for row in maker.first_rows()}
            counted = [row.null_directions for row in first.values() if row.score is not None]
            nulls = counted[0] if counted else None
        table.settings["null_directions"] = nulls
        progress.clear()
        outdated = _outdated(table, nulls, paths, say)
        left = [
            index
            for index, path in enumerate(paths)
            if path in outdated or (index in chosen and not _has_score(table, path))
        ]
        ready = [first[paths[index]] for index in left if paths[index] in first]
        # Where no image could be scored, all of them have been tried.
        rest = [index for index in left if paths[index] not in first]
        progress.total = len(left)
        for rows in itertools.chain([ready], maker.rows(rest, nulls or 0)):
            table.add(rows)
            scored += sum(row.score is not None for row in rows)
            progress.update(len(rows))
            if time.monotonic() - written >= part_seconds:
                table.flush()
                written = time.monotonic()
    return scored


def _has_score(table: ScoreTable, path: str) -> bool:
    return path in table.rows and table.rows[path].score is not None


def _outdated(
    table: ScoreTable, nulls: int | None, paths: Sequence[str], say: Callable[[str], None]
) -> set[str]:
    """Images scored with another count of null directions, whose scores do not compare.

    Rows of such images that are no longer there cannot be made again, and go.
    """
    if nulls is None:
        return set()
    found = {
        path: row.null_directions
        for path, row in table.rows.items()
        if row.score is not None and row.null_directions != nulls
    }
    gone = found.keys() - set(paths)
    if found:
        say(
            f"The first images are others than before and show {nulls} null directions of the "
            f"encoder, not {max(found.values())}: {len(found) - len(gone):,} images are scored "
            "again, so that all scores compare"
            + (f", and {len(gone):,} rows of images that are gone are dropped." if gone else ".")
        )
    for path in gone:
        del table.rows[path]
    return found.keys() - gone


def _write_sheet(file: Path, maker: RowMaker, rows: Sequence[ScoredImage]) -> None:
    source, network = maker.source, maker.network
    index = {path: i for i, path in enumerate(source.paths)}
    here = [row for row in rows if row.path in index]

    def thumbnail(path: str) -> Image.Image | None:
        try:
            return maker.image(index[path])
        except Unreadable:
            # It could be read when it was scored, by an earlier call maybe.
            return None

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
