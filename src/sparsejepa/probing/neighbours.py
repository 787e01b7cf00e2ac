"""k-nearest-neighbour probe: cosine similarity and a temperature-weighted vote (Wu et al. 2018)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from sparsejepa.randomness import generator


@dataclass(frozen=True)
class NeighbourChoice:
    """The vote that did best on held-out rows of the bank."""

    k: int  # neighbours that vote
    temperature: float  # of exp(similarity / temperature)
    validation_top1: float  # share of held-out rows predicted right, 0 to 1


def knn_accuracy(
    bank: Float[Tensor, "N d"],
    bank_labels: Int64[Tensor, "N"],
    queries: Float[Tensor, "Q d"],
    query_labels: Int64[Tensor, "Q"],
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Share of queries, 0 to 1, whose predicted label is theirs."""
    predictions = knn_predict(bank, bank_labels, queries, k, temperature)
    return (predictions == query_labels.to(predictions.device)).double().mean().item()


def knn_predict(
    bank: Float[Tensor, "N d"],
    bank_labels: Int64[Tensor, "N"],
    queries: Float[Tensor, "Q d"],
    k: int = 20,
    temperature: float = 0.07,
    chunk_bytes: int = 1 << 26,
) -> Int64[Tensor, "Q"]:
    """Each query's label by the vote of its k most similar rows of the bank.

    A neighbour votes with exp(cosine similarity / temperature); an infinite temperature counts
    every neighbour alike. Of equal votes the smallest label wins.

    Args:
        chunk_bytes: the similarities of a chunk of queries stay below this many bytes.

    Raises:
        ValueError: k outside 1 to N, a temperature that is not positive, features that are not
            finite, or a negative label.
    """
    similarities, neighbours = nearest(bank, queries, k, chunk_bytes)
    if bank_labels.min() < 0:
        raise ValueError(f"Labels must not be negative; the bank has {bank_labels.min().item()}.")
    classes = int(bank_labels.max()) + 1
    return vote(similarities, bank_labels.to(bank.device)[neighbours], temperature, classes)


def choose_knn(
    bank: Float[Tensor, "N d"],
    bank_labels: Int64[Tensor, "N"],
    *,
    seed: int,
    ks: tuple[int, ...] = (5, 10, 20, 50, 100),
    temperatures: tuple[float, ...] = (0.03, 0.07, 0.2),
    fraction: float = 0.1,
) -> NeighbourChoice:
    """The k and temperature that predict a random `fraction` of the bank best from the rest.

    Of equal choices the first in the order of `ks`, then of `temperatures`, is taken.

    Raises:
        ValueError: as `knn_predict`, or a fraction that leaves one of the two parts empty.
    """
    held = round(fraction * len(bank))
    if not 0 < held < len(bank):
        raise ValueError(
            f"fraction {fraction} of {len(bank)} rows leaves no rows to "
            f"{'predict' if held <= 0 else 'predict from'}."
        )
    order = torch.randperm(len(bank), generator=generator(seed, "knn validation")).to(bank.device)
    labels = bank_labels.to(bank.device)
    out, rest = order[:held], order[held:]
    similarities, neighbours = nearest(bank[rest], bank[out], max(ks))
    voters, classes = labels[rest][neighbours], int(labels.max()) + 1
    choices = []
    for k in ks:
        for temperature in temperatures:
            predicted = vote(similarities[:, :k], voters[:, :k], temperature, classes)
            top1 = (predicted == labels[out]).double().mean().item()
            choices.append(NeighbourChoice(k, temperature, top1))
    return max(choices, key=lambda choice: choice.validation_top1)


def nearest(
    bank: Float[Tensor, "N d"],
    queries: Float[Tensor, "Q d"],
    k: int,
    chunk_bytes: int = 1 << 26,
) -> tuple[Float[Tensor, "Q k"], Int64[Tensor, "Q k"]]:
    """Cosine similarities and indices of the k most similar rows, most similar first."""
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must be from 1 to the {len(bank)} rows of the bank, not {k}.")
    if not (bank.isfinite().all() and queries.isfinite().all()):
        raise ValueError("Features contain NaN or infinity: the encoder's weights are damaged.")
    unit_bank = F.normalize(bank.float(), dim=1)
    unit_queries = F.normalize(queries.to(bank.device).float(), dim=1)
    rows = max(1, chunk_bytes // (unit_bank.element_size() * len(bank)))
    found = [(chunk @ unit_bank.T).topk(k, dim=1) for chunk in unit_queries.split(rows)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def vote(
    similarities: Float[Tensor, "Q k"],
    labels: Int64[Tensor, "Q k"],
    temperature: float,
    classes: int,
) -> Int64[Tensor, "Q"]:
    """The label with the largest sum of exp(similarity / temperature)."""
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}.")
    # The largest similarity is taken off first: exp(1 / 0.01) overflows float32.
    weights = ((similarities - similarities[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(weights), classes).scatter_add_(1, labels, weights)
    return votes.argmax(dim=1)
