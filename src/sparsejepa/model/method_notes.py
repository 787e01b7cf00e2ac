"""What each row of `methods.METHODS` is, in words: for tables of the book."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Note:
    """A method in words. Marks: verified, secondary, inferred, derived, memory; see the book."""

    title: str  # as in figures and tables
    change: str  # what it changes of JEPA
    sparsity: str  # what is sparse, if anything
    source: str  # paper, and what is ours
    mark: str  # how surely the change is the source's


NOTES: Mapping[str, Note] = MappingProxyType(
    {
        "jepa": Note(
            "JEPA",
            "nothing: predicts the averaged encoder's features of hidden blocks",
            "nothing",
            "I-JEPA, arXiv 2301.08243",
            "verified",
        ),
        "sparsejepa": Note(
            "SparseJEPA R1",
            "proximal group lasso on the maps from latents to groups of predictor channels",
            "a group of predictor channels does not read a latent: exact zeros",
            "SparseJEPA, arXiv 2504.16140, read as oi-VAE, arXiv 1802.06765",
            "inferred",
        ),
        "sparsejepa-r1b": Note(
            "SparseJEPA R1b",
            "the penalty of R1 as a part of the loss that AdamW steps",
            "as R1, but columns get small and never exactly zero",
            "SparseJEPA, arXiv 2504.16140, its abstract's words penalty method",
            "inferred",
        ),
        "sparsejepa-r2": Note(
            "SparseJEPA R2",
            "mean over tokens of the summed norms of groups of encoder channels",
            "a token uses few groups of encoder channels",
            "SparseJEPA, arXiv 2504.16140, as a public summary describes it",
            "secondary",
        ),
        "sparsejepa-r3": Note(
            "SparseJEPA R3",
            "R2, with noisy latents and their KL divergence from a standard normal law",
            "as R2, of the latents' means",
            "SparseJEPA, arXiv 2504.16140, as a public summary describes it; KL terms of a JEPA: "
            "Var-JEPA (ICML 2026, PMLR 306)",
            "secondary",
        ),
        "l1": Note(
            "L1",
            "proximal step of single weights instead of groups: the control of R1",
            "a predictor channel does not read a latent: exact zeros",
            "a control of ours",
            "derived",
        ),
        "cjepa": Note(
            "C-JEPA",
            "variance and covariance terms on pooled context features",
            "nothing",
            "C-JEPA, arXiv 2410.19560, weights of VICReg, arXiv 2105.04906; which features the "
            "terms see is ours",
            "verified",
        ),
        "sigreg": Note(
            "SIGReg",
            "no moving average and no stopped gradient; pooled features should be Gaussian",
            "nothing",
            "LeJEPA, arXiv 2511.08544; masks in place of its views, and no projector, are ours",
            "verified",
        ),
        "rectified": Note(
            "Rectified LpJEPA",
            "as SIGReg, but rectified features, which should follow a rectified Laplace law",
            "an image's pooled features, rectified, are zero in about half of the channels",
            "Rectified LpJEPA, arXiv 2602.01456; masks in place of its views, and no projector, "
            "are ours",
            "verified",
        ),
        "ec-ijepa": Note(
            "EC-IJEPA",
            "each encoder gets tokens that tell where the other's window lies",
            "nothing",
            "EC-IJEPA, arXiv 2410.10773; one token a window from its mean position is ours",
            "verified",
        ),
        "tjepa": Note(
            "T-JEPA token",
            "one learned token beside the patches of both encoders",
            "nothing",
            "T-JEPA, arXiv 2410.05016, whose data are tables",
            "verified",
        ),
        "mae": Note(
            "MAE",
            "predicts the normalised pixels of hidden patches",
            "nothing",
            "MAE, arXiv 2111.06377; JEPA's masks and predictor are kept",
            "memory",
        ),
    }
)
