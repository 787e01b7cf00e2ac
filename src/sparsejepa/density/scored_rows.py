"""Rows of `sparsejepa score` from encoded images, and the null directions that all rows share.

How many directions the encoder's construction makes null is counted from images, and a single one
may hide some: a black image stops more directions than the construction does. So the count always
comes from the first images of the source, however many of them a call is to score.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sparsejepa.density.decoding import Decoded, Unreadable, decode_image
from sparsejepa.density.image_source import Source
from sparsejepa.density.jepa_score import jepa_score
from sparsejepa.density.score_table import ScoredImage
from sparsejepa.density.scored_backbone import ScoredBackbone

# Images that have a score, the source's first ones, from which null directions are counted.
PROBED = 4


@dataclass(frozen=True)
class _Prepared:
    path: str
    note: str  # what was converted
    pixels: Float[Tensor, "3 H W"]  # in [0, 1]


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of a source's images."""

    source: Source
    network: ScoredBackbone
    batch_size: int  # images at once
    chunk_size: int  # rows of a Jacobian at once

    def first_rows(self) -> list[ScoredImage]:
        """Rows of the first images, up to the one that is the `PROBED`th to have a score.

        Their null directions are counted from those `PROBED` images: fewer if the source has fewer
        that can be scored. Rows of images that were skipped on the way come first.

        Raises:
            ValueError: the encoder is none that has a JEPA-SCORE, or too little memory.
        """
        skipped: list[ScoredImage] = []
        prepared: list[_Prepared] = []
        scored: list[ScoredImage] = []
        for index in range(len(self.source.paths)):
            found = self._prepared(index)
            if isinstance(found, ScoredImage):
                skipped.append(found)
            else:
                prepared.append(found)
            last = index == len(self.source.paths) - 1
            if prepared and (len(prepared) == PROBED or last):
                rows = self._scored(prepared, None)
                # An image without a finite Jacobian counts nothing: the next one takes its place.
                skipped += [row for row in rows if row.score is None]
                scored = [row for row in rows if row.score is not None]
                if len(scored) == PROBED:
                    break
                known = {row.path for row in scored}
                prepared = [image for image in prepared if image.path in known]
        return skipped + scored

    def rows(self, indices: Sequence[int], null_directions: int) -> Iterator[list[ScoredImage]]:
        """A row for each of the images, a batch at a time, skipped ones included.

        Raises:
            ValueError: as `first_rows`.
        """
        prepared: list[_Prepared] = []
        skipped: list[ScoredImage] = []
        for index in indices:
            found = self._prepared(index)
            if isinstance(found, ScoredImage):
                skipped.append(found)
            else:
                prepared.append(found)
            if len(prepared) == self.batch_size:
                yield skipped + self._scored(prepared, null_directions)
                prepared, skipped = [], []
        if prepared:
            skipped += self._scored(prepared, null_directions)
        if skipped:
            yield skipped

    def image(self, index: int) -> Image.Image:
        """The image as it is now, RGB.

        Raises:
            Unreadable: it is gone, or cannot be decoded.
        """
        return self._decoded(index).image

    def _prepared(self, index: int) -> _Prepared | ScoredImage:
        """The pixels, or the row of an image that has to be skipped."""
        path = self.source.paths[index]
        try:
            found = self._decoded(index)
        except Unreadable as error:
            return ScoredImage(path, note=f"skipped: {error}")
        return _Prepared(path, found.note, self.network.prepare(found.image))

    def _decoded(self, index: int) -> Decoded:
        try:
            encoded = self.source.read(index)
        except (OSError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or error
            raise Unreadable(f"it cannot be read ({reason})") from error
        if not encoded:
            raise Unreadable("it is empty")
        return decode_image(encoded, self.network.size)

    def _scored(
        self, prepared: Sequence[_Prepared], null_directions: int | None
    ) -> list[ScoredImage]:
        try:
            found = jepa_score(
                self.network.encoder,
                torch.stack([image.pixels for image in prepared]),
                null_directions=null_directions,
                chunk_size=self.chunk_size,
                batch_size=self.batch_size,
            )
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"A batch of {self.batch_size} images with {self.chunk_size} rows of the Jacobian "
                "at once does not fit into the GPU's memory: lower --batch-size or --chunk-size."
            ) from error
        nulls = found.null_directions
        counted = found.log_spectrum.shape[1] - nulls
        return [
            ScoredImage(image.path, score, None, counted - clipped, clipped, nulls, image.note)
            if math.isfinite(score)
            else ScoredImage(image.path, note="skipped: its Jacobian is not finite")
            for image, score, clipped in zip(
                prepared, found.score.tolist(), found.clipped.tolist(), strict=True
            )
        ]


def known_nulls(paths: Sequence[str], rows: Mapping[str, ScoredImage]) -> int | None:
    """The null directions of a table in which the source's first images have their score.

    None: one of them has no score yet, or they were counted before other images came.
    """
    first = [rows.get(path) for path in paths[:PROBED]]
    counts = {None if row is None or row.score is None else row.null_directions for row in first}
    return counts.pop() if len(counts) == 1 else None
