"""How sparse activations are, in measures that no rescaling can feign."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# Below this share of the root mean square, an activation, or a unit's spread, counts as none.
_SMALL = 0.01


@torch.no_grad()
def activation_sparsity(activations: Float[Tensor, "n d"]) -> dict[str, float]:
    """Sparsity of n activation vectors of d units.

    activation_density: share of entries above a hundredth of the root mean square of all;
    dead_units: share of units whose standard deviation over the vectors is at most a hundredth of
    the root mean square of those of all units (of constant vectors all are dead).
    """
    activations = activations.double()
    size = activations.square().mean().sqrt()
    spread = activations.std(0, correction=0)
    typical = spread.square().mean().sqrt()
    # A constant unit's spread is rounding noise, which must not count as life.
    noise = 1e-6 * size
    dead = spread <= torch.maximum(_SMALL * typical, noise)
    return {
        "activation_density": (activations.abs() > _SMALL * size).double().mean().item(),
        "dead_units": dead.double().mean().item(),
    }


@torch.no_grad()
def group_sparsity(
    activations: Float[Tensor, "n d"], groups: Int64[Tensor, "G p_g"]
) -> dict[str, float]:
    """How each vector's norm spreads over G groups of its units, averaged over the vectors.

    hoyer: 0 when all groups have one norm, 1 when one group has all (Hoyer 2004);
    effective_groups: (sum of the norms)² / sum of their squares, from G down to 1; zero vectors
    count as one group.
    """
    norms = activations.double()[:, groups].norm(dim=-1)
    total = norms.norm(dim=-1)
    ratio = torch.where(total > 0, norms.sum(-1) / total.clamp(min=1e-300), 1.0)
    root = len(groups) ** 0.5
    hoyer = (root - ratio) / (root - 1) if root > 1 else torch.zeros_like(ratio)
    return {
        "hoyer": hoyer.mean().item(),
        "effective_groups": ratio.square().mean().item(),
    }
