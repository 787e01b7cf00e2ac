"""Scores depend on the images alone: not on earlier calls, and not on what could not be read."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from sparsejepa.density import contact_sheet, scored_rows, scoring_tool
from sparsejepa.density.score_table import SETTINGS
from sparsejepa.density.scored_backbone import ScoredBackbone
from sparsejepa.density.scoring_tool import score_images
from tests.density.tiny_images import encoded, folder_of, plain, quiet, rows, tiny_file

BLACK = encoded(Image.new("RGB", (16, 16)))
NOISE = {f"{seed}.png": encoded(plain(seed)) for seed in range(1, 5)}


class Bent(nn.Module):
    """Eight grey levels of an image, of which the last four go through `bend`."""

    def __init__(self, bend: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.bend = bend

    def forward(self, images: Tensor) -> Tensor:
        levels = F.adaptive_avg_pool2d(images, 4).flatten(1)[:, :8]
        return torch.cat([levels[:, :4], self.bend(levels[:, 4:])], dim=1)


@pytest.fixture
def bent(monkeypatch) -> Callable[[Callable[[Tensor], Tensor]], None]:
    """Makes the tool score by `Bent`."""

    def use(bend: Callable[[Tensor], Tensor]) -> None:
        network = ScoredBackbone("bent", Bent(bend).eval(), to_tensor, 16, "0" * 64)
        monkeypatch.setattr(scoring_tool, "scored_backbone", lambda _: network)

    return use


@pytest.fixture
def square(bent) -> None:
    """A black image stops the four squares, other images none: null directions 4 and 0."""
    bent(torch.square)


def scored(folder: Path, out: Path, **options) -> dict[str, dict]:
    score_images(str(folder), "bent", out, **{"say": quiet} | options)
    return rows(out)


def kept_count(out: Path) -> str:
    found = re.search(rb'"null_directions": (\w+)', pq.read_schema(out).metadata[SETTINGS])
    return found[1].decode()


@pytest.mark.parametrize(("limit", "batch_size"), [(1, 4), (1, 1), (2, 3), (3, 8)])
def test_limit_is_a_first_taste(tmp_path: Path, square, limit: int, batch_size: int):
    """Later without it, the rest follows, and every score is that of a single call.

    Even where the first image alone would show other null directions than the first four.
    """
    folder, out = folder_of(tmp_path / "images", {"0.png": BLACK} | NOISE), tmp_path / "s.parquet"
    whole = scored(folder, tmp_path / "whole.parquet")
    names = ["0.png", *NOISE]
    taste = scored(folder, out, limit=limit, batch_size=batch_size)
    assert list(taste) == names[:limit]
    assert taste["0.png"]["score"] == pytest.approx(whole["0.png"]["score"], rel=1e-12)
    after = scored(folder, out, batch_size=batch_size)
    assert list(after) == names
    for name in names:
        assert after[name]["score"] == pytest.approx(whole[name]["score"], rel=1e-12)
        assert after[name]["null_directions"] == whole[name]["null_directions"] == 0
    assert kept_count(out) == kept_count(tmp_path / "whole.parquet") == "0"


def test_images_that_come_may_change_the_count(tmp_path: Path, square):
    """Then all are scored again, which is said, and scores are those of a single call."""
    folder = folder_of(tmp_path / "images", {"0.png": BLACK, "00.png": BLACK})
    out = tmp_path / "s.parquet"
    before = scored(folder, out)
    assert before["0.png"]["null_directions"] == 4 and kept_count(out) == "4"
    folder_of(folder, NOISE)
    (folder / "00.png").unlink()
    said: list[str] = []
    after = scored(folder, out, limit=1, say=said.append)
    assert said[1] == (
        "The first images are others than before and show 0 null directions of the encoder, not "
        "4: 1 images are scored again, so that all scores compare, and 1 rows of images that are "
        "gone are dropped."
    )
    # The black image has the four directions clipped now, and left out before.
    assert after["0.png"]["score"] < before["0.png"]["score"] and after["0.png"]["clipped"] == 4
    assert scored(folder, out) == scored(folder, tmp_path / "whole.parquet")
    assert kept_count(out) == "0"


def test_what_is_scored_is_not_scored_again(tmp_path: Path, square, monkeypatch):
    """With the first images in the table, their null directions are known."""
    folder, out = folder_of(tmp_path / "images", {"0.png": BLACK} | NOISE), tmp_path / "s.parquet"
    before = scored(folder, out)
    monkeypatch.setattr(scored_rows, "jepa_score", lambda *_, **__: pytest.fail("scored again"))
    assert scored(folder, out) == before


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_image_without_a_derivative_is_skipped(tmp_path: Path, bent, batch_size: int):
    """The root has none at black: a row that says so, and the other images are scored.

    Their null directions are counted without it, from the same images as if it were not there.
    """
    bent(torch.sqrt)
    files = {"0.png": BLACK, "3b.png": BLACK, "9.png": BLACK} | NOISE
    folder = folder_of(tmp_path / "images", files)
    found = scored(folder, tmp_path / "s.parquet", batch_size=batch_size)
    for name in ("0.png", "3b.png", "9.png"):
        assert found[name]["note"] == "skipped: its Jacobian is not finite"
        assert found[name]["score"] is found[name]["null_directions"] is None
    alone = scored(folder_of(tmp_path / "others", NOISE), tmp_path / "o.parquet")
    assert {name: found[name]["score"] for name in NOISE} == pytest.approx(
        {name: row["score"] for name, row in alone.items()}, rel=1e-12
    )


def test_only_images_without_a_derivative(tmp_path: Path, bent):
    """A sentence, and a row for each."""
    bent(torch.sqrt)
    folder = folder_of(tmp_path / "images", {f"{i}.png": BLACK for i in range(6)})
    with pytest.raises(ValueError, match="None of the images could be read; see their notes"):
        scored(folder, tmp_path / "s.parquet")
    assert len(rows(tmp_path / "s.parquet")) == 6


def test_a_skipped_image_is_tried_again(tmp_path: Path, monkeypatch):
    """Once in each later call: mended, it gets its score, the one of a single call."""
    files = {"a.png": b"broken", "z.png": b"broken"} | NOISE
    folder, out = folder_of(tmp_path / "images", files), tmp_path / "s.parquet"
    weights = str(tiny_file(tmp_path))
    assert score_images(str(folder), weights, out, say=quiet).scored == 4
    folder_of(folder, {"a.png": encoded(plain(7))})
    tried: list[bytes] = []
    decode = scored_rows.decode_image

    def counting(content: bytes, smallest: int):
        tried.append(content)
        return decode(content, smallest)

    with monkeypatch.context() as patch:
        patch.setattr(scored_rows, "decode_image", counting)
        patch.setattr(scoring_tool, "_write_sheet", lambda *_: None)
        assert score_images(str(folder), weights, out, say=quiet).scored == 1
    assert tried.count(b"broken") == 1
    found = rows(out)
    assert found["a.png"]["note"] == "" and found["z.png"]["note"].startswith("skipped: ")
    folder_of(folder, {"z.png": encoded(plain(8))})
    assert score_images(str(folder), weights, out, say=quiet).scored == 1
    score_images(str(folder), weights, tmp_path / "whole.parquet", say=quiet)
    whole = rows(tmp_path / "whole.parquet")
    assert list(rows(out)) == list(whole)
    for name, row in rows(out).items():
        assert row["score"] == pytest.approx(whole[name]["score"], rel=1e-6)


@pytest.mark.parametrize("content", [None, b"", b"damaged"])
def test_an_image_lost_since_has_a_place_in_the_sheet(tmp_path: Path, content: bytes | None):
    """Gone, empty or damaged after it was scored: the call succeeds, and its score stays."""
    folder, weights = folder_of(tmp_path / "images", NOISE), str(tiny_file(tmp_path))
    out = tmp_path / "s.parquet"
    score_images(str(folder), weights, out, say=quiet)
    before = rows(out)
    lost = folder / "2.png"
    if content is None:
        # The listing still has it: it goes while the sheet is written.
        write = contact_sheet.write_contact_sheet

        def late(*arguments):
            lost.unlink()
            write(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scoring_tool, "write_contact_sheet", late)
            done = score_images(str(folder), weights, out, say=quiet)
    else:
        lost.write_bytes(content)
        done = score_images(str(folder), weights, out, say=quiet)
    page = done.sheet.read_text()
    assert rows(out) == before
    assert page.count("<img ") == 3 and page.count("can no longer be read") == 1
    assert re.search(r"can no longer be read</div><figcaption>2\.png<br>", page)
