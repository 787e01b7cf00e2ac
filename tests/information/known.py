"""Draws from laws of known multiinformation by the path of a seed, and what to compare with."""

import numpy as np
import torch

from sparsejepa.chapters import multiinformation as known_laws
from sparsejepa.randomness import generator


def gaussian_rows(n: int, correlation: torch.Tensor, *path: int | str) -> torch.Tensor:
    return known_laws.gaussian_rows(n, correlation, generator(0, *path))


def student_rows(n: int, d: int, degrees: int, *path: int | str) -> torch.Tensor:
    return known_laws.student_rows(n, d, degrees, generator(0, *path))


def random_correlation(d: int, *path: int | str) -> torch.Tensor:
    factor = torch.randn(d, d, generator=generator(0, *path), dtype=torch.float64)
    covariance = factor @ factor.T + 0.5 * torch.eye(d)
    scale = covariance.diagonal().sqrt()
    return covariance / scale / scale[:, None]


def warp(x: torch.Tensor) -> torch.Tensor:
    maps = (torch.exp, lambda z: z**3, torch.atan, lambda z: 2 * z.sinh() - 5, torch.tanh)
    return torch.stack([maps[j % len(maps)](column) for j, column in enumerate(x.T)], dim=1)


def lattice(n: int, d: int) -> np.ndarray:
    """Fractional parts of i · sqrt(prime): numbers that every machine makes alike."""
    primes = np.sqrt([2, 3, 5, 7, 11, 13, 17][:d])
    return np.arange(1, n + 1)[:, None] * primes % 1.0


def block_truth(correlation: torch.Tensor, groups: list[list[int]]) -> float:
    """½ [sum_g ln det R_g - ln det R], by eigenvalues."""

    def half(columns: list[int]) -> float:
        return 0.5 * torch.linalg.eigvalsh(correlation[columns][:, columns]).log().sum().item()

    return sum(half(group) for group in groups) - half([i for group in groups for i in group])


def interval_hit(result, truth: float, level: float = 0.95) -> bool:
    low, high = result.interval(level)
    return low <= truth <= high
