"""Why the library never factorises by LU: log-determinants come from Cholesky or eigenvalues.

On some CPUs with two or more threads, batched LU (`slogdet`, `inv`, `solve`) of matrices from about
160 x 160 on was measured to be silently wrong by nats, or to raise. Cholesky, eigh, QR and SVD were
right to 1e-13. No test can show that on every machine.
"""

import ast

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


def test_neither_library_nor_notebooks_factorise_by_lu():
    """No file and no code cell calls a function that torch, numpy or scipy computes by LU."""
    sources = {str(path): path.read_text() for path in (ROOT / "src").rglob("*.py")}
    for name, cells in notebook_sources().items():
        sources[name] = "\n".join(map(without_magics, cells))
    assert [name for name, source in sources.items() if uses_of_lu(source)] == []
    assert uses_of_lu("from torch.linalg import inv as i; a.inverse()") == {"inv", "inverse"}
