"""A Gaussian process over genomes: what is known of those that have not been tried.

Its kernel is a Matérn 5/2 over the features of `evometa.space.features`, with one weight a gene, so
that genes which do not matter are found out (automatic relevance determination; Rasmussen and
Williams, 2006, chapters 2 and 5). Several objectives share kernel and weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.optimize

from evometa.space.features import Features

Array = npt.NDArray[np.float64]

ROOT5 = 5**0.5
JITTER = 1e-6
STEPS = 20  # of the search for weights; each begins where the last one ended
WIDTH = 1.5  # standard deviation of the prior of log weights


class Columns:
    """Turns features into rows of numbers; a name that is new gets a column of its own."""

    def __init__(self) -> None:
        self._columns: dict[tuple[str, str], int] = {}
        self._genes: dict[str, int] = {}
        self._gene_of: list[int] = []

    @property
    def gene_of(self) -> npt.NDArray[np.int64]:
        """The gene of each column."""
        return np.array(self._gene_of, dtype=np.int64)

    @property
    def genes(self) -> int:
        """How many genes there are."""
        return len(self._genes)

    def rows(self, genomes: Sequence[Features], *, learn: bool = False) -> Array:
        """Return features as rows, shape `(genomes, columns)`.

        Args:
            genomes: the features of each.
            learn: whether names that are new get columns; else they are left out.
        """
        if learn:
            for found in genomes:
                for name in found:
                    if name not in self._columns:
                        self._columns[name] = len(self._columns)
                        gene = self._genes.setdefault(name[0], len(self._genes))
                        self._gene_of.append(gene)
        rows = np.zeros((len(genomes), len(self._columns)))
        for row, found in zip(rows, genomes, strict=True):
            for name, value in found.items():
                column = self._columns.get(name)
                if column is not None:
                    row[column] = value
        return rows


class Weights:
    """How much each gene matters, and how noisy the values are; learned now and then."""

    def __init__(self) -> None:
        self.log_weights = np.zeros(0)
        self.log_noise = np.log(1e-2)

    def grow(self, genes: int) -> None:
        """Make room for genes that are new."""
        fresh = np.full(genes - len(self.log_weights), self._typical(genes))
        self.log_weights = np.concatenate([self.log_weights, fresh])

    def learn(self, rows: Array, gene_of: npt.NDArray[np.int64], values: Array) -> None:
        """Make the values likelier, by a few steps of L-BFGS.

        Args:
            rows: shape `(genomes, columns)`.
            gene_of: gene of each column.
            values: standardised, shape `(genomes, objectives)`.
        """
        n, genes = len(rows), len(self.log_weights)
        apart = np.stack([_squared(rows[:, gene_of == gene]) for gene in range(genes)])
        apart = apart.reshape(genes, n * n)
        typical, noise = self._typical(genes), np.log(1e-2)

        def loss(point: Array) -> tuple[float, Array]:
            weights = np.exp(point[:-1])
            kernel, slope = _matern((weights @ apart).reshape(n, n), slope=True)
            full = kernel + (np.exp(point[-1]) + JITTER) * np.eye(n)
            try:
                lower = np.linalg.cholesky(full)
            except np.linalg.LinAlgError:
                return 1e10, np.zeros_like(point)
            inverse = scipy.linalg.cho_solve((lower, True), np.eye(n))
            alpha = inverse @ values
            k = values.shape[1]
            pull = k * inverse - alpha @ alpha.T  # twice the derivative by the kernel
            value = 0.5 * float((values * alpha).sum()) + k * float(np.log(lower.diagonal()).sum())
            grad = np.empty_like(point)
            grad[:-1] = 0.5 * weights * (apart @ (pull * slope).ravel())
            grad[-1] = 0.5 * np.exp(point[-1]) * np.trace(pull)
            away = np.append(point[:-1] - typical, (point[-1] - noise) / 2)
            value += 0.5 * float((away**2).sum()) / WIDTH**2
            grad += np.append(away[:-1], away[-1] / 2) / WIDTH**2
            return value, grad

        start = np.append(self.log_weights, self.log_noise)
        bounds = [(-8.0, 6.0)] * genes + [(np.log(1e-5), np.log(1.0))]
        found = scipy.optimize.minimize(
            loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS}
        )
        self.log_weights, self.log_noise = found.x[:-1], float(found.x[-1])

    @staticmethod
    def _typical(genes: int) -> float:
        # two random genomes, about half of whose genes differ, lie at distance 1
        return float(np.log(2.0 / max(1, genes)))


class Surrogate:
    """A Gaussian process, given what has been seen.

    Args:
        rows: features, shape `(genomes, columns)`; first those seen, then those pending.
        seen: how many have been seen. The others are taken to come out as predicted, so that
            meanwhile others are proposed (the kriging believer; Ginsbourger et al., 2010).
        scale: square root of the weight of each column.
        noise: variance of the noise.
    """

    def __init__(self, rows: Array, seen: int, scale: Array, noise: float) -> None:
        self._scale, self._noise, self._seen = scale, noise, seen
        self._rows = rows * scale
        self._lower = _cholesky(_kernel(self._rows, self._rows), noise)

    def solve(self, values: Array) -> Array:
        """Return what `predict` needs for the values of those seen, shape `(seen,)`."""
        lower = self._lower[: self._seen, : self._seen]
        return np.asarray(scipy.linalg.cho_solve((lower, True), values, check_finite=False))

    def near(self, rows: Array) -> Array:
        """Return the kernel of genomes with those seen, shape `(genomes, seen)`.

        Its product with what `solve` returns are the predicted means.
        """
        return _kernel(rows * self._scale, self._rows[: self._seen])

    def predict(self, rows: Array, solved: Array) -> tuple[Array, Array]:
        """Return means and standard deviations, each of shape `(genomes,)`."""
        near = _kernel(rows * self._scale, self._rows)
        half = scipy.linalg.solve_triangular(self._lower, near.T, lower=True, check_finite=False)
        variance = 1.0 - (half**2).sum(0)
        # a value that equals its prediction leaves all other predictions as they are
        return near[:, : self._seen] @ solved, np.sqrt(np.maximum(variance, 1e-10))

    def believe(self, row: Array) -> None:
        """Take one more genome to come out as predicted."""
        near = _kernel(row[None] * self._scale, self._rows)[0]
        half = scipy.linalg.solve_triangular(self._lower, near, lower=True, check_finite=False)
        n = len(self._lower)
        lower = np.zeros((n + 1, n + 1))
        lower[:n, :n], lower[n, :n] = self._lower, half
        lower[n, n] = np.sqrt(max(1.0 + self._noise + JITTER - half @ half, JITTER))
        self._lower = lower
        self._rows = np.vstack([self._rows, row * self._scale])


def _kernel(one: Array, other: Array) -> Array:
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
    return _matern(np.maximum(squares, 0.0), slope=False)[0]


def _matern(squares: Array, *, slope: bool) -> tuple[Array, Array]:
    """Return the kernel of squared distances, and if asked for its derivative by them."""
    scaled = ROOT5 * np.sqrt(squares)
    decay = np.exp(-scaled)
    kernel = (1 + scaled + scaled**2 / 3) * decay
    return kernel, -(5 / 6) * (1 + scaled) * decay if slope else kernel


def _squared(columns: Array) -> Array:
    squares = (columns**2).sum(1)
    return np.asarray(np.maximum(squares[:, None] + squares[None] - 2 * columns @ columns.T, 0.0))


def _cholesky(kernel: Array, noise: float) -> Array:
    return np.asarray(np.linalg.cholesky(kernel + (noise + JITTER) * np.eye(len(kernel))))
