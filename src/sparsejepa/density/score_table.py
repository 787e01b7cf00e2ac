"""The rows of `sparsejepa score`: parts that survive a kill, then one Parquet file."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sparsejepa.atomic_files import write_with

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("score", pa.float64()),
        ("percentile", pa.float64()),
        ("rank", pa.int64()),
        ("clipped", pa.int64()),
        ("null_directions", pa.int64()),
        ("note", pa.string()),
    ]
)
SETTINGS = b"sparsejepa.score"  # key of the settings in a file's metadata


@dataclass(frozen=True)
class ScoredImage:
    """One row; an image that was skipped has no numbers, and a note that says why."""

    path: str  # within the folder, or file#row
    score: float | None = None  # JEPA-SCORE, nats; higher is more likely
    percentile: float | None = None  # share of scored images with a lower score, 0 to 100
    rank: int | None = None  # singular values of the Jacobian that count: not null, not clipped
    clipped: int | None = None  # those raised to eps
    null_directions: int | None = None  # those left out, the encoder's construction
    note: str = ""  # what was converted, or "skipped: ..."


class ScoreTable:
    """Collects rows in `<out>.parts/`, each part written whole or not at all.

    Raises:
        ValueError: what is there was made with other settings, or is damaged.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.out, self.settings = out, settings
        self.parts = out.with_name(f"{out.name}.parts")
        self.rows: dict[str, ScoredImage] = {}
        self._pending: list[ScoredImage] = []
        found = sorted(self.parts.glob("part-*.parquet"))
        for file in ([out] if out.exists() else []) + found:
            self._take(file)
        self._next = 1 + max((int(file.stem.split("-")[1]) for file in found), default=-1)

    def add(self, rows: Sequence[ScoredImage]) -> None:
        """Rows that the next `flush` writes."""
        self.rows |= {row.path: row for row in rows}
        self._pending += rows

    def flush(self) -> None:
        """Writes the rows since the last time as a part."""
        if self._pending:
            self._write(self.parts / f"part-{self._next:06d}.parquet", self._pending)
            self._next, self._pending = self._next + 1, []

    def finish(self, paths: Sequence[str]) -> list[ScoredImage]:
        """Writes all rows, those of `paths` first and in their order; the parts go."""
        known = dict.fromkeys([*(path for path in paths if path in self.rows), *self.rows])
        rows = with_percentiles([self.rows[path] for path in known])
        self._write(self.out, rows)
        shutil.rmtree(self.parts, ignore_errors=True)
        return rows

    def _take(self, file: Path) -> None:
        try:
            table = pq.read_table(file)
            made_with = json.loads(table.schema.metadata[SETTINGS])
            rows = [ScoredImage(**row) for row in table.to_pylist()]
        except (pa.ArrowException, OSError, KeyError, TypeError) as error:
            raise ValueError(
                f"{file} is damaged or no table of scores: delete it, or choose another --out."
            ) from error
        for name, value in self.settings.items():
            if made_with.get(name) != value:
                raise ValueError(
                    f"{file} was made with another {name} ({made_with.get(name)}, now {value}): "
                    "choose another --out, or delete it."
                )
        self.rows |= {row.path: row for row in rows}

    def _write(self, file: Path, rows: Sequence[ScoredImage]) -> None:
        schema = SCHEMA.with_metadata({SETTINGS: json.dumps(self.settings)})
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema)
        write_with(file, lambda temporary: pq.write_table(table, temporary))


def with_percentiles(rows: Sequence[ScoredImage]) -> list[ScoredImage]:
    """The share of scored images below each one, in per cent."""
    scores = sorted(row.score for row in rows if row.score is not None)
    below = {score: index for index, score in reversed(list(enumerate(scores)))}
    return [
        row
        if row.score is None
        else ScoredImage(**asdict(row) | {"percentile": 100 * below[row.score] / len(scores)})
        for row in rows
    ]


def ordered(rows: Sequence[ScoredImage]) -> list[ScoredImage]:
    """The scored rows, most likely first."""
    return sorted(
        (row for row in rows if row.score is not None and math.isfinite(row.score)),
        key=lambda row: (-row.score, row.path),
    )
