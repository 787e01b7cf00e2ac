"""EC-IJEPA (2410.10773): each encoder is told where the other one's window lies."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sparsejepa.model.vit import initialise


class WindowTokens(nn.Module):
    """One extra token a window: a learned linear map of its patches' mean position vector.

    That the context encoder is told the target windows, and the target encoder the context, is the
    paper's [verified: abstract]; the form of the token is ours.
    """

    def __init__(self, positions: Float[Tensor, "N d"], generator: torch.Generator) -> None:
        super().__init__()
        width = positions.shape[1]
        with torch.random.fork_rng(devices=[]):
            self.projection = nn.Linear(width, width)
        initialise(self.projection, generator)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, windows: Int64[Tensor, "B M T"]) -> Float[Tensor, "B M d"]:
        """Tokens of M windows of T patches each."""
        return self.projection(self.positions[windows].mean(2))
