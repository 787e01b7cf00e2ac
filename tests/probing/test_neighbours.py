import math
from collections import Counter

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from sparsejepa.probing import neighbours
from sparsejepa.probing.neighbours import choose_knn, knn_predict, vote
from sparsejepa.randomness import generator


def clusters(count: int, classes: int, width: int, noise: float, seed: int = 0):
    draw = generator(seed, "clusters")
    centres = torch.nn.functional.normalize(torch.randn(classes, width, generator=draw))
    labels = torch.randint(classes, (count,), generator=draw)
    return centres[labels] + noise * torch.randn(count, width, generator=draw), labels


def test_agrees_with_scikit_learn_for_equal_votes() -> None:
    """An infinite temperature is scikit-learn's cosine classifier with uniform weights."""
    x, y = clusters(600, 6, 12, 0.5)
    reference = KNeighborsClassifier(9, metric="cosine", algorithm="brute").fit(x[:400], y[:400])
    predicted = knn_predict(x[:400], y[:400], x[400:], k=9, temperature=math.inf)
    assert predicted.tolist() == reference.predict(x[400:]).tolist()


def test_agrees_with_a_loop() -> None:
    """The weighted vote, written row by row in plain Python, in float64."""
    x, y = clusters(200, 5, 8, 0.6)
    bank, queries = x[:150].double(), x[150:].double()
    expected = []
    for query in queries:
        similarity = [(query @ row / (query.norm() * row.norm())).item() for row in bank]
        votes: Counter = Counter()
        for i in sorted(range(150), key=lambda i: -similarity[i])[:20]:
            votes[int(y[i])] += math.exp(similarity[i] / 0.07)
        expected.append(max(votes, key=lambda label: votes[label]))
    assert knn_predict(x[:150], y[:150], x[150:]).tolist() == expected


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clusters(300, 4, 8, 0.6)
    whole = knn_predict(x[:200], y[:200], x[200:])
    monkeypatch.setattr(neighbours, "CHUNK_BYTES", 4 * 200 * 7)
    assert torch.equal(knn_predict(x[:200], y[:200], x[200:]), whole)


def test_temperature_weighs_votes() -> None:
    """Two far neighbours outvote a near one when it is warm, not when it is cold."""
    similarities, labels = torch.tensor([[0.9, 0.5, 0.5]]), torch.tensor([[1, 0, 0]])
    # exp(0.4 / T) against 2: the break-even point is T = 0.4 / log 2 = 0.577.
    assert vote(similarities, labels, 0.57).item() == 1
    assert vote(similarities, labels, 0.59).item() == 0
    # exp(1 / 0.001) is infinite in float32; the nearest neighbour decides all the same.
    assert vote(similarities, labels, 1e-3).item() == 1


def test_choice_is_made_on_the_bank_and_sensible() -> None:
    x, y = clusters(1000, 3, 16, 0.2)
    wrong = torch.rand(1000, generator=generator(3)) < 0.5
    y = torch.where(wrong, torch.randint(3, (1000,), generator=generator(4)), y)
    choice = choose_knn(x, y, seed=0, ks=(1, 50))
    assert choice[0] == 50
    assert choice == choose_knn(x, y, seed=0, ks=(1, 50))


def test_refuses_what_has_no_neighbours() -> None:
    x, y = clusters(10, 2, 4, 0.1)
    with pytest.raises(ValueError, match="NaN"):
        knn_predict(x, y, x * math.nan, k=3)
    with pytest.raises(ValueError, match="leave none to hold out"):
        choose_knn(x[:4], y[:4], seed=0)
