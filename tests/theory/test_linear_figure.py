"""The interactive figure: its numbers are the library's, and it stands without a script."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sparsejepa.theory.linear_dynamics import critical_time, linear_dynamics
from tests.repository import ROOT

STATIC = ROOT / "book" / "_static"
SETTINGS = [
    (objective, depth, lam, rho, epsilon)
    for objective in ("jepa", "mae")
    for depth, lam, rho, epsilon in (
        (1, 1.2, 0.4, 0.1),
        (2, 1.0, 0.9, 0.02),
        (5, 0.7, 0.5, 8.6e-4),
        (8, 2.0, 1.0, 1e-8),
    )
]
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def node(expression: str) -> str:
    """What an expression in the script's own names prints."""
    script = f"const f = require('./linear_dynamics.js'); process.stdout.write({expression});"
    done = subprocess.run(["node", "-e", script], cwd=STATIC, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_node
def test_the_script_has_the_library_s_times():
    """Both integrals, at three shares of the fixed point, to 1e-8."""
    calls = json.dumps([[*setting, [0.5, 0.9, 0.999]] for setting in SETTINGS])
    found = json.loads(node(f"JSON.stringify({calls}.map((c) => f.reachTimes(...c)))"))
    for (objective, *setting), times in zip(SETTINGS, found, strict=True):
        dynamics = linear_dynamics(objective, *setting)
        exact = [critical_time(dynamics, fraction)[0] for fraction in (0.5, 0.9, 0.999)]
        np.testing.assert_allclose(times, exact, rtol=1e-8)


@needs_node
def test_the_figure_in_the_page_is_the_script_s():
    """`node linear_dynamics.js > linear_dynamics.html` changes nothing."""
    assert node("f.fragment()") == (STATIC / "linear_dynamics.html").read_text()


def test_the_page_loads_nothing_from_elsewhere():
    """Every address is a file beside it; sliders have labels; a picture stands without a script."""
    html = (STATIC / "linear_dynamics.html").read_text()
    for address in re.findall(r'(?:src|href)="([^"]+)"', html):
        assert (STATIC / Path(address).name).is_file()
        assert address.startswith("../_static/")
    sliders = re.findall(r'<input type="range" id="([^"]+)"', html)
    assert len(sliders) == 6
    assert sliders == re.findall(r'<label for="([^"]+)"', html)
    assert '<svg xmlns="http://www.w3.org/2000/svg"' in html
    assert "<noscript>" in html
