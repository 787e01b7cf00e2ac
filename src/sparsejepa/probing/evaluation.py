"""The standard reading of a representation: linear probe and kNN, chosen without the test set."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from sparsejepa.data.batches import to_unit
from sparsejepa.probing.linear import linear_probe
from sparsejepa.probing.neighbours import choose_knn, knn_predict

# Features wider than this get a smaller sweep: raw pixels would take minutes instead of seconds.
_WIDE = 1024


@dataclass(frozen=True)
class Evaluation:
    """What the probes read from one representation."""

    correct: dict[str, Bool[Tensor, "M"]]  # probe -> which test images it got right
    chosen: dict[str, float]  # settings chosen on held-out training images


def evaluate(
    train_x: Float[Tensor, "N d"],
    test_x: Float[Tensor, "M d"],
    train_y: Int64[Tensor, "N"],
    test_y: Int64[Tensor, "M"],
    *,
    seed: int,
) -> Evaluation:
    """Linear probe and kNN; the test images are scored once, after every choice."""
    sweep = {}
    if train_x.shape[1] > _WIDE:
        sweep = {"learning_rates": (1e-2,), "weight_decays": (1e-4, 1e-2, 1e-1)}
    linear = linear_probe(train_x, train_y, test_x, test_y, seed=seed, **sweep)
    # The rule is chosen on part of the images: it varies little, and wide features are slow.
    some = slice(0, 20_000)
    ks = tuple(k for k in (5, 10, 20, 50, 100) if k <= len(train_x) // 2) or (1,)
    rule = choose_knn(train_x[some], train_y[some], seed=seed, ks=ks)
    nearest = knn_predict(train_x, train_y, test_x, rule.k, rule.temperature)
    return Evaluation(
        {"linear probe": linear.correct, "kNN": nearest == test_y},
        {
            "learning_rate": linear.learning_rate,
            "weight_decay": linear.weight_decay,
            "k": rule.k,
            "temperature": rule.temperature,
        },
    )


def pixel_features(
    train: UInt8[Tensor, "N H W 3"], test: UInt8[Tensor, "M H W 3"]
) -> tuple[Float[Tensor, "N d"], Float[Tensor, "M d"]]:
    """Raw pixels as features, centred by the training images' mean: the control of every probe."""
    train_x, test_x = (to_unit(images).flatten(1) for images in (train, test))
    mean = train_x.mean(0)
    return train_x.sub_(mean), test_x.sub_(mean)
