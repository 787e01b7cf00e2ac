"""k-nearest-neighbour probe: cosine similarity and a temperature-weighted vote (Wu et al. 2018)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from sparsejepa.probing.features import TestX, TestY, TrainX, TrainY, as_float
from sparsejepa.randomness import generator

KS = (5, 10, 20, 50, 100)
TEMPERATURES = (0.03, 0.07, 0.2)
VALIDATION_FRACTION = 0.1  # of the bank, drawn by the seed
CHUNK_BYTES = 1 << 26  # of similarities at a time


def knn_accuracy(
    bank: TrainX,
    bank_labels: TrainY,
    queries: TestX,
    query_labels: TestY,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Share of queries, 0 to 1, whose label `knn_predict` gets right.

    Example:
        >>> bank, labels = torch.eye(2), torch.tensor([0, 1])
        >>> knn_accuracy(bank, labels, torch.tensor([[3.0, 1.0]]), torch.tensor([0]), k=1)
        1.0
    """
    predicted = knn_predict(bank, bank_labels, queries, k, temperature)
    return (predicted == query_labels.to(predicted.device)).double().mean().item()


def knn_predict(
    bank: TrainX, bank_labels: TrainY, queries: TestX, k: int = 20, temperature: float = 0.07
) -> TestY:
    """Each query's label by the vote of its k most similar rows of the bank (arXiv 1805.01978).

    A vote counts exp(cosine similarity / temperature); of equal sums the smallest label wins.
    Computed in float32. ValueError: features that are not finite.
    """
    similarities, neighbours = nearest(bank, queries, k)
    return vote(similarities, bank_labels.to(neighbours.device)[neighbours], temperature)


def choose_knn(
    bank: TrainX, bank_labels: TrainY, *, seed: int, ks: Sequence[int] = KS
) -> tuple[int, float]:
    """The k and temperature that best predict held-out rows of the bank; the first of equals."""
    held = round(VALIDATION_FRACTION * len(bank))
    if held == 0:
        raise ValueError(f"{len(bank)} rows leave none to hold out; a choice needs 6 or more.")
    order = torch.randperm(len(bank), generator=generator(seed, "knn validation")).to(bank.device)
    labels, out, rest = bank_labels.to(bank.device), order[:held], order[held:]
    similarities, neighbours = nearest(bank[rest], bank[out], max(ks))
    voters = labels[rest][neighbours]
    right = {
        (k, t): (vote(similarities[:, :k], voters[:, :k], t) == labels[out]).sum()
        for k in ks
        for t in TEMPERATURES
    }
    return max(right, key=right.get)


def nearest(
    bank: TrainX, queries: TestX, k: int
) -> tuple[Float[Tensor, "M k"], Int64[Tensor, "M k"]]:
    """Cosine similarities and indices of the k most similar rows, most similar first."""
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must be from 1 to the {len(bank)} rows of the bank, not {k}.")
    unit_bank, unit_queries = (
        F.normalize(as_float(x).to(bank.device).float(), dim=1) for x in (bank, queries)
    )
    rows = max(1, CHUNK_BYTES // (unit_bank.element_size() * len(bank)))
    found = [(chunk @ unit_bank.T).topk(k, dim=1) for chunk in unit_queries.split(rows)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def vote(
    similarities: Float[Tensor, "M k"], labels: Int64[Tensor, "M k"], temperature: float
) -> TestY:
    """The label with the largest sum of exp(similarity / temperature)."""
    # The largest similarity is taken off first: exp(1 / 0.01) overflows float32.
    weights = ((similarities - similarities[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(weights), int(labels.max()) + 1)
    return votes.scatter_add_(1, labels.long(), weights).argmax(dim=1)
