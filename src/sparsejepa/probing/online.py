"""What is watched while an encoder trains: cheap measures that show what the loss hides."""

from collections.abc import Callable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor, nn

from sparsejepa.probing.collapse import feature_spread, rankme
from sparsejepa.probing.features import pooled_features
from sparsejepa.probing.neighbours import knn_accuracy


def online_watch(
    images: UInt8[Tensor, "N H W 3"],
    labels: Int64[Tensor, "N"],
    queries: int = 2000,
    bank: int = 8000,
    autocast: torch.dtype | None = None,
) -> Callable[[nn.Module], dict[str, float]]:
    """A function of the encoder: online kNN accuracy, RankMe and spread of pooled features.

    The last `queries` training images are classified by their nearest neighbours among the
    first `bank` others. No test image is touched: the test set is scored once, at the end.

    Raises:
        ValueError: there are too few images to leave any for the bank.
    """
    bank = min(bank, len(images) - queries)
    if bank < 1:
        raise ValueError(f"{len(images)} images leave none beside {queries} queries.")

    def watch(encoder: nn.Module) -> dict[str, float]:
        known = pooled_features(encoder, images[:bank], autocast=autocast)
        asked = pooled_features(encoder, images[-queries:], autocast=autocast)
        return {
            "knn": knn_accuracy(known, labels[:bank], asked, labels[-queries:], k=min(20, bank)),
            "rankme": rankme(asked),
            "feature_spread": feature_spread(asked),
        }

    return watch
