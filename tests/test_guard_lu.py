"""Why the library never factorises by LU: log-determinants come from Cholesky or eigenvalues.

On some CPUs with two or more threads, batched LU (`slogdet`, `inv`, `solve`) of matrices from about
160 x 160 on was measured to be silently wrong by nats, or to raise. Cholesky, eigh, QR and SVD were
right to 1e-13. No test can show that on every machine, so these show what is used instead.
"""

import ast

import torch

from sparsejepa.randomness import generator
from tests.repository import ROOT, notebook_sources, without_magics

FACTORISES_BY_LU = {
    *("slogdet", "logdet", "det", "inv", "inv_ex", "inverse", "solve", "solve_ex"),
    *("lu", "lu_factor", "lu_factor_ex", "lu_solve", "tensorinv", "tensorsolve"),
}


def uses_of_lu(source: str) -> set[str]:
    """Names of FACTORISES_BY_LU that the code reads as attributes or imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found.update(alias.name for alias in node.names)
    return found & FACTORISES_BY_LU


def test_the_guard_sees_every_way_to_call():
    """Methods, functions of a module, and imported names are all found; relatives are not."""
    assert uses_of_lu("torch.linalg.slogdet(a)") == {"slogdet"}
    assert uses_of_lu("x = a.inverse() @ np.linalg.solve(b, c)") == {"inverse", "solve"}
    assert uses_of_lu("from torch.linalg import inv as i") == {"inv"}
    assert uses_of_lu("torch.linalg.solve_triangular(a, b, upper=True); solve_ivp(f)") == set()


def test_the_library_never_factorises_by_lu():
    """No file of the library calls a function that torch, numpy or scipy computes by LU."""
    uses = {path.name: uses_of_lu(path.read_text()) for path in (ROOT / "src").rglob("*.py")}
    assert {name: found for name, found in uses.items() if found} == {}


def test_the_notebooks_never_factorise_by_lu():
    """The same for every code cell."""
    for name, cells in notebook_sources().items():
        for cell in cells:
            assert uses_of_lu(without_magics(cell)) == set(), name


def test_log_determinants_by_cholesky_and_by_eigenvalues_agree():
    """log det A = 2 sum log diag(chol A) = sum log eig A, for a batch of 192 x 192 in float64."""
    factors = torch.randn(4, 192, 192, dtype=torch.float64, generator=generator(0, "lu"))
    matrices = factors @ factors.mT / 192 + torch.eye(192, dtype=torch.float64)
    by_cholesky = 2 * torch.linalg.cholesky(matrices).diagonal(dim1=-2, dim2=-1).log().sum(-1)
    by_eigenvalues = torch.linalg.eigvalsh(matrices).log().sum(-1)
    torch.testing.assert_close(by_cholesky, by_eigenvalues, rtol=1e-12, atol=0)
    # A matrix at a time, too: batching changes nothing.
    alone = torch.stack([2 * torch.linalg.cholesky(m).diagonal().log().sum() for m in matrices])
    torch.testing.assert_close(by_cholesky, alone, rtol=1e-12, atol=0)
