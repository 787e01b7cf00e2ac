"""`sparsejepa score` as a command: killed and called again, and a user's mistakes."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sparsejepa.cli import app
from sparsejepa.density.scoring_tool import score_images
from tests.density.tiny_images import encoded, folder_of, plain, quiet, rows, tiny_file


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return str(tiny_file(tmp_path))


# Scores a folder slowly, one image a part.
SLOWLY = """
import sys, time
from pathlib import Path
from sparsejepa.density import scored_rows, scoring_tool

decode = scored_rows.decode_image
def slow(*arguments):
    time.sleep(0.1)
    return decode(*arguments)

scored_rows.decode_image = slow
images, weights, out = sys.argv[1:]
scoring_tool.score_images(images, weights, Path(out), batch_size=1, part_seconds=0.0)
"""


def test_killed_at_any_moment_it_goes_on(tmp_path: Path, weights: str):
    """After SIGKILL, finished rows are kept and the table becomes that of an uninterrupted call."""
    files = {f"{seed}.png": encoded(plain(seed)) for seed in range(12)} | {"x.png": b"broken"}
    folder = str(folder_of(tmp_path / "images", files))
    out, whole = tmp_path / "s.parquet", tmp_path / "whole.parquet"
    command = [sys.executable, "-c", SLOWLY, folder, weights, str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts = tmp_path / "s.parquet.parts"
    while len(list(parts.glob("part-*.parquet"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    said: list[str] = []
    done = score_images(folder, weights, out, batch_size=1, say=said.append)
    kept = int(re.match(r"(\d+) of 13 images have their score already", said[0])[1])
    assert 3 <= kept < 13 and done.scored == 12 - kept
    score_images(folder, weights, whole, batch_size=1, say=quiet)
    assert rows(out) == rows(whole)


@pytest.mark.parametrize(
    ("images", "backbone", "message"),
    [
        ("nowhere/at/all", None, "There is no folder, Parquet file or data set 'nowhere/at/all'"),
        ("empty", None, "There are no images in"),
        ("owner/name", None, "is no folder or file here, and the Hub did not give its split"),
        ("text.parquet", None, "is neither a folder of images nor a Parquet file"),
        ("images", "vit_tny_patch16_224", "timm has no model 'vit_tny_patch16_224'; did you mean"),
        (
            "images",
            "vit_tiny_patch16_224.typo",
            "timm has no weights 'typo' of vit_tiny_patch16_224: choose the tag augreg_in21k or "
            "augreg_in21k_ft_in1k.",
        ),
        ("images", "test_vit4.typo", "has no weights 'typo' of test_vit4, nor any others of it."),
        ("images", "gone.safetensors", "There is no file of weights gone.safetensors"),
        ("images", "damaged.safetensors", "damaged.safetensors is damaged"),
        ("unreadable", None, "None of the images could be read"),
    ],
)
def test_a_users_mistake_is_one_sentence(
    tmp_path: Path, weights: str, monkeypatch, images: str, backbone: str | None, message: str
):
    """On the command line: exit code 2, no traceback."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no table")
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    folder_of(tmp_path / "images", {"a.png": encoded(plain())})
    folder_of(tmp_path / "unreadable", {"a.png": b"broken"})
    arguments = ["score", images, "--backbone", backbone or weights, "--out", "s.parquet"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_the_command_line(tmp_path: Path, weights: str):
    """Says where table and contact sheet are."""
    folder = folder_of(tmp_path / "images", {"a.png": encoded(plain()), "b.png": b"broken"})
    out = tmp_path / "s.parquet"
    result = CliRunner().invoke(
        app, ["score", str(folder), "--backbone", weights, "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert "1 images scored, 1 in all; 0 were converted and 1 skipped" in result.stdout
    assert "b.png was skipped: it cannot be decoded" in result.stdout
    assert f"Scores are in {out}, the contact sheet in {tmp_path / 's.html'}." in result.stdout
