"""Finished runs as `verify` sees them: what they printed, and the means to compute it again."""

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sparsejepa.companion.files import read_json
from sparsejepa.companion.pretrained import Pretrained
from sparsejepa.data.image_set import ImageSet, load_image_set
from sparsejepa.training.checkpoint import load_encoder


class NotChecked(Exception):
    """Numbers that cannot be computed again here; its text says why."""


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from the printed one and still be the same."""

    size: float  # in the number's own unit
    why: str  # what makes honest computations differ by that much


@dataclass(frozen=True)
class Comparison:
    """One number of a run, as printed and as computed again."""

    run: str  # preset/notebook/run
    place: str  # in results.json, parts joined by " > "
    printed: Any  # None: results.json has nothing there
    again: float
    tolerance: Tolerance

    @property
    def agrees(self) -> bool:
        """Whether the printed number is the computed one, within the tolerance."""
        if not isinstance(self.printed, int | float):
            return False
        return abs(self.printed - self.again) <= self.tolerance.size

    def line(self) -> str:
        """For a reader."""
        known = isinstance(self.printed, int | float)
        printed = f"{self.printed:.7g}" if known else self.printed or "nothing"
        return (
            f"{'ok' if self.agrees else 'DIFFERS':9}{self.run}: {self.place}: printed {printed}, "
            f"computed {self.again:.7g}, tolerance {self.tolerance.size:.1g}"
        )


@dataclass(frozen=True)
class StoredRun:
    """One finished run."""

    folder: Path
    results: dict[str, Any]  # its results.json
    manifest: dict[str, Any]  # its manifest.json

    @property
    def id(self) -> str:
        """preset/notebook/run."""
        return "/".join(self.folder.parts[-3:])

    @property
    def parameters(self) -> dict[str, Any]:
        """Of its notebook, with the values in use."""
        return self.manifest["parameters"]

    def compare(
        self, keys: tuple[str | int, ...], again: float | int, tolerance: Tolerance
    ) -> Comparison:
        """The number at `keys` of results.json beside the one computed again."""
        place: Any = self.results
        for key in keys:
            try:
                place = place[key]
            except (KeyError, IndexError, TypeError):
                place = None
        return Comparison(self.id, " > ".join(map(str, keys)), place, float(again), tolerance)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The content of one of the run's safetensors files.

        Raises:
            NotChecked: it is not there, or damaged.
        """
        try:
            return load_file(self.folder / name)
        except (FileNotFoundError, SafetensorError) as error:
            raise NotChecked(f"{name} is not in the run's folder, or damaged") from error

    def pretrained(self) -> Pretrained:
        """The run as other chapters read it, its encoder in float32, frozen.

        Raises:
            NotChecked: its weights are not there, or damaged.
        """
        path = self.folder / "encoder.safetensors"
        if not path.is_file():
            raise NotChecked("its weights are not in the run's folder")
        try:
            encoder = load_encoder(path).requires_grad_(False)
        except ValueError as error:
            raise NotChecked("its weights are damaged") from error
        method, seed = self.results["method"], self.manifest["seed"]
        return Pretrained(self.folder.name, method, seed, encoder, self.results, self.folder)


class Workbench:
    """The finished runs of a preset, their image sets, and the time that may be spent on them."""

    def __init__(
        self, preset_folder: Path, minutes: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._clock = preset_folder, clock
        self._end = clock() + 60 * minutes
        self._images: dict[tuple[str, str], ImageSet] = {}

    def runs(self, notebook: str = "*") -> list[StoredRun]:
        """Finished runs of a notebook, or of all; the first seed of every method comes first.

        Raises:
            ValueError: a file of a run is damaged.
        """
        found = [
            StoredRun(path.parent, read_json(path.parent / "results.json"), read_json(path))
            for path in self._folder.glob(f"{notebook}/*/manifest.json")
            if (path.parent / "results.json").is_file()
        ]
        return sorted(found, key=lambda run: (run.manifest["seed"], run.id))

    def run(self, notebook: str, name: str) -> StoredRun:
        """One of them.

        Raises:
            NotChecked: there is no such run.
        """
        for run in self.runs(notebook):
            if run.folder.name == name:
                return run
        raise NotChecked(f"the run {name} of {notebook}, from which they came, is not there")

    def with_weights(self, names: Iterable[str]) -> dict[str, Pretrained]:
        """Those of the named pretraining runs whose weights are here; others are left out."""
        found = {run.folder.name: run for run in self.runs("01_pretrain")}
        weighed = {}
        for name in names:
            with contextlib.suppress(NotChecked, KeyError):
                weighed[name] = found[name].pretrained()
        return weighed

    def images(self, run: StoredRun, split: str, count: int, name: str = "") -> ImageSet:
        """The first `count` images (0: all) that a run had, of its own data set unless named.

        Raises:
            FileNotFoundError, ConnectionError: the set is not here.
            ValueError: these are other images than the run's.
        """
        name = name or run.parameters["dataset"]
        if (name, split) not in self._images:
            self._images[name, split] = load_image_set(name, split)
        found = self._images[name, split].take(count)
        for recorded in run.manifest["data"]:
            if (recorded["name"], recorded["split"]) == (name, split):
                if recorded["pixel_sha256"] != found.pixel_sha256:
                    raise ValueError(
                        f"{name} {split} is not the image set of {run.id}: its pixels have SHA-256 "
                        f"{found.pixel_sha256[:12]}…, the run's {recorded['pixel_sha256'][:12]}…."
                    )
        return found

    def now(self) -> float:
        """Seconds on the clock."""
        return self._clock()

    def spend(self, seconds: float) -> None:
        """Asks for time.

        Raises:
            NotChecked: less is left.
        """
        left = self._end - self._clock()
        if seconds > left:
            more = max(1, round((seconds - max(left, 0)) / 60))
            raise NotChecked(f"no time left: give --minutes, about {more} more")
