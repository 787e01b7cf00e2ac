"""The paper's listing of JEPA-SCORE (2510.05949, appendix B), re-stated plainly for comparison."""

from collections.abc import Callable

import torch
from torch import Tensor


def listing_jacobian(encoder: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """J [B, K, D]: backward passes, one a dimension, of the embeddings' sum over the batch."""
    rows = torch.autograd.functional.jacobian(lambda batch: encoder(batch).sum(0), images)
    return rows.flatten(2).permute(1, 0, 2)


def listing_score(jacobian: Tensor, eps: float = 1e-6) -> Tensor:
    """Sum of the logarithms of the singular values, each raised to at least eps."""
    return torch.linalg.svdvals(jacobian).clip(min=eps).log().sum(1)
