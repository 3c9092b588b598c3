"""A Gaussian mixture with full covariances, fitted by expectation maximisation, for hundreds of points.

scikit-learn would bring the same as one more dependency; this is the part ALP-GMM needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

FLOOR = 1e-6  # added to the diagonal of every covariance, as in scikit-learn


@dataclass(frozen=True)
class Mixture:
    """K Gaussians in D dimensions.

    Attributes:
        weights: (K,), sum 1.
        means: (K, D).
        covariances: (K, D, D), positive definite.
        log_likelihood: of the points it was fitted to, summed.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    log_likelihood: float

    @property
    def aic(self) -> float:
        """Akaike's information criterion of the fit: lower is better."""
        k, d = self.means.shape
        parameters = k * (d + d * (d + 1) / 2) + k - 1
        return 2 * parameters - 2 * self.log_likelihood


def fit(
    points: np.ndarray, components: int, rng: Generator, iterations: int = 100, tolerance: float = 1e-3
) -> Mixture:
    """Fit a mixture to points (N, D) from a k-means++ start.

    Args:
        components: K, at most N.
        tolerance: stop when the mean log likelihood per point rises by less.
    """
    n, d = points.shape
    means = _spread(points, components, rng)
    weights = np.full(components, 1.0 / components)
    spread = np.cov(points.T).reshape(d, d) if n > 1 else np.eye(d)
    covariances = np.repeat((spread + FLOOR * np.eye(d))[None], components, axis=0)
    before = -np.inf
    for _ in range(iterations):
        log_p = _log_joint(points, weights, means, covariances)  # (N, K)
        norm = np.logaddexp.reduce(log_p, axis=1)  # (N,)
        after = float(norm.mean())
        r = np.exp(log_p - norm[:, None])
        mass = r.sum(0) + 10 * np.finfo(float).eps
        weights, means = mass / n, (r.T @ points) / mass[:, None]
        away = points[None] - means[:, None]  # (K, N, D)
        covariances = np.einsum("nk,kni,knj->kij", r, away, away) / mass[:, None, None] + FLOOR * np.eye(d)
        if after - before < tolerance:
            break
        before = after
    total = float(np.logaddexp.reduce(_log_joint(points, weights, means, covariances), axis=1).sum())
    return Mixture(weights, means, covariances, total)


def best_of(points: np.ndarray, sizes: range, rng: Generator) -> Mixture:
    """Fit one mixture per number of components and return the one of least AIC."""
    fits = [fit(points, k, rng) for k in sizes if k <= len(points)]
    return min(fits, key=lambda mixture: mixture.aic)


def _log_joint(
    points: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray
) -> np.ndarray:
    """log(weight_k N(x_n | k)), (N, K)."""
    d = points.shape[1]
    chol = np.linalg.cholesky(covariances)  # (K, D, D)
    away = points[None] - means[:, None]  # (K, N, D)
    solved = np.linalg.solve(chol, away.transpose(0, 2, 1))  # (K, D, N)
    log_det = np.log(np.diagonal(chol, axis1=1, axis2=2)).sum(1)  # (K,)
    log_n = -0.5 * (solved**2).sum(1) - log_det[:, None] - 0.5 * d * np.log(2 * np.pi)
    return (np.log(weights + 1e-300)[:, None] + log_n).T


def _spread(points: np.ndarray, k: int, rng: Generator) -> np.ndarray:
    """k-means++: each next centre is drawn by squared distance to the nearest one so far."""
    centres = [points[int(rng.integers(len(points)))]]
    for _ in range(k - 1):
        distance = np.min([((points - c) ** 2).sum(1) for c in centres], axis=0)
        total = distance.sum()
        p = distance / total if total > 0 else np.full(len(points), 1 / len(points))
        centres.append(points[int(rng.choice(len(points), p=p))])
    return np.array(centres)
