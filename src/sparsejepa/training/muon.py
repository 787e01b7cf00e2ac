"""torch's own Muon, with the matrices of one shape orthogonalised together."""

import torch
from torch import Tensor, nn


class Muon(torch.optim.Muon):
    """Muon (Jordan et al. 2024) with AdamW's size of updates (`match_rms_adamw`).

    Step and state are torch's own, to the bit where products of a batch round as single ones do.
    """

    def __init__(self, matrices: list[nn.Parameter]) -> None:
        super().__init__(matrices, lr=0.0, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self) -> None:
        """One step of all matrices that have a gradient."""
        [group] = self.param_groups
        matrices, gradients, momenta = [], [], []
        self._init_group(group, matrices, gradients, momenta)
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        for shape in dict.fromkeys(matrix.shape for matrix in matrices):
            alike = [index for index, matrix in enumerate(matrices) if matrix.shape == shape]
            # Nesterov's momentum.
            updates = [gradients[i].lerp(momenta[i], group["momentum"]) for i in alike]
            rate = 0.2 * group["lr"] * max(shape) ** 0.5
            for i, update in zip(alike, orthogonalised(torch.stack(updates)), strict=True):
                matrices[i].add_(update, alpha=-rate)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Newton and Schulz's five quintic steps in bf16, which bring all singular values near 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.bfloat16()
    wide = wide.mT.contiguous() if tall else wide
    wide /= torch.linalg.vector_norm(wide, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = wide @ wide.mT
        update = torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315)
        wide = torch.baddbmm(wide, update, wide, beta=3.4445)
    return wide.mT if tall else wide
