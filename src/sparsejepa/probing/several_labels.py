"""One representation read for several labels: what no label changes is computed once."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sparsejepa.probing.linear import linear_probe, whiten
from sparsejepa.probing.neighbours import choose_knn, nearest, vote

LINEAR, TOP5, KNN = "linear probe", "linear probe, top 5", "kNN"
_KS = (5, 10, 20, 50, 100)
# The vote is chosen on this many training rows at most: the choice varies little with more.
_VOTERS = 10_000


@dataclass(frozen=True)
class Reading:
    """What the probes read of one label."""

    correct: dict[str, Bool[Tensor, "M"]]  # probe -> which test rows it got right
    chosen: dict[str, float]  # settings chosen on held-out training rows


def read_labels(
    train_x: Float[Tensor, "N d"],
    test_x: Float[Tensor, "M d"],
    train_y: Mapping[str, Int64[Tensor, "N"]],
    test_y: Mapping[str, Int64[Tensor, "M"]],
    *,
    seed: int,
    **sweep: object,
) -> dict[str, Reading]:
    """Linear probe (top 1 and top 5) and kNN of every label, each as for that label alone.

    Settings are chosen on held-out training rows; the test rows are scored once, afterwards. The
    labels share the whitening of the features and the search for neighbours, which for wide
    features take longer than the rest.

    Args:
        sweep: passed to `linear_probe`.

    Raises:
        ValueError: as `linear_probe` and `nearest`; a label that only one side has.
    """
    if train_y.keys() != test_y.keys():
        raise ValueError(
            f"Training and test rows need the same labels, not {', '.join(train_y)} and "
            f"{', '.join(test_y)}."
        )
    whitening = whiten(train_x)
    ks = tuple(k for k in _KS if k <= len(train_x) // 2) or (1,)
    similarities, neighbours = nearest(train_x, test_x, max(ks))
    readings = {}
    for label, y in train_y.items():
        options = {"seed": seed, "whitening": whitening, **sweep}
        linear = linear_probe(train_x, y, test_x, test_y[label], **options)
        rule = choose_knn(train_x[:_VOTERS], y[:_VOTERS], seed=seed, ks=ks)
        voters, classes = y[neighbours[:, : rule.k]], int(y.max()) + 1
        voted = vote(similarities[:, : rule.k], voters, rule.temperature, classes)
        readings[label] = Reading(
            {LINEAR: linear.correct, TOP5: linear.correct5, KNN: voted == test_y[label]},
            {
                "learning_rate": linear.learning_rate,
                "weight_decay": linear.weight_decay,
                "k": rule.k,
                "temperature": rule.temperature,
            },
        )
    return readings
