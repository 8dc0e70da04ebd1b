"""Batches of labelled positives (P) and unlabeled (U) in a fixed ratio, and known negatives (N)."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from picking.errors import UserError
from picking.seeds import stream


class PUBatchSampler:
    """Batch sampler for a DataLoader: index arrays, first the P of a batch, then its N and its U.

    Every batch holds exactly ``n_pos_per_batch`` = int(batch_size·p/(p+u)) of P and
    ``n_unl_per_batch``, the rest, of U. An epoch is one pass over U in a new order; its last batch
    is filled from a further permutation. P is drawn from an endless queue of permutations that
    goes on across epochs, so all of P is used before any repeats. (A batch that lies across two
    permutations may hold an index twice.)

    N, rows about known negatives, come on top where there are any: ``n_neg_per_batch``, so that one
    of N is seen about as often as one of P, but never more than there are of P. They leave the P
    and U of a batch as they would be without.

    The order depends on the seed, the epoch and the position in it alone: call ``set_epoch`` before
    each epoch, and with ``start_batch`` to go on in the middle of one.

    With several processes, each yields its own equal part of the same global batches, first
    ``n_pos_per_process`` of P, then ``n_neg_per_process`` of N.

    Args:
        labeled: bool (n,), true for P.
        batch_size: of the global batch.
        ratio: p and u, labelled to unlabeled.
        seed: of the run.
        rank, world_size: which process this is, from 0, and how many there are.
        negative: bool (n,), true for N; None: there are none.

    Raises:
        UserError: when a batch would lack P or U, there are none, or the processes cannot share the
            batch equally.
    """

    def __init__(
        self,
        labeled: np.ndarray,
        batch_size: int,
        ratio: Sequence[float] = (1, 4),
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        negative: np.ndarray | None = None,
    ):
        negative = np.zeros_like(labeled) if negative is None else negative
        self.positive = np.flatnonzero(labeled)
        self.negative = np.flatnonzero(negative)
        self.unlabeled = np.flatnonzero(~labeled & ~negative)
        self.n_pos_per_batch, self.n_unl_per_batch = split_batch(batch_size, ratio)
        if not len(self.positive) or not len(self.unlabeled):
            raise UserError(
                f"training needs labelled and unlabeled patches, but the data set has "
                f"{len(self.positive)} labelled and {len(self.unlabeled)} unlabeled"
            )
        if self.n_pos_per_batch % world_size or self.n_unl_per_batch % world_size:
            raise UserError(
                f"{world_size} processes cannot share the {self.n_pos_per_batch} labelled and "
                f"{self.n_unl_per_batch} unlabeled patches of a batch equally: choose another "
                "batch size"
            )
        self.n_pos_per_process = self.n_pos_per_batch // world_size
        as_often = self.n_pos_per_process * len(self.negative) / len(self.positive)
        self.n_neg_per_process = min(math.ceil(as_often), self.n_pos_per_process)
        self.n_neg_per_batch = self.n_neg_per_process * world_size
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.set_epoch(0)

    def __len__(self) -> int:
        """Return the batches of a whole epoch: n_U / n_unl_per_batch, rounded up."""
        return math.ceil(len(self.unlabeled) / self.n_unl_per_batch)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch, from 0, and the batch in it that the next iteration starts at."""
        self.epoch, self.start_batch = epoch, start_batch

    def __iter__(self) -> Iterator[np.ndarray]:
        n_pos, n_neg, n_unl = self.n_pos_per_batch, self.n_neg_per_batch, self.n_unl_per_batch
        start, first_step = self.start_batch, self.epoch * len(self) + self.start_batch
        positive = _draws(self.positive, n_pos, first_step * n_pos, self.seed, "positive")
        negative = _draws(self.negative, n_neg, first_step * n_neg, self.seed, "negative")
        unlabeled = _draws(self.unlabeled, n_unl, start * n_unl, self.seed, "unl", self.epoch)
        for _ in range(start, len(self)):
            draws = [next(positive), next(negative), next(unlabeled)]
            yield np.concatenate([np.split(d, self.world_size)[self.rank] for d in draws])


def split_batch(batch_size: int, ratio: Sequence[float]) -> tuple[int, int]:
    """Return how many of P and of U a batch holds: int(batch_size·p/(p+u)) and the rest."""
    p, u = ratio
    n_pos = int(batch_size * p / (p + u)) if min(ratio) > 0 else 0
    n_unl = batch_size - n_pos
    if n_pos < 1 or n_unl < 1:
        raise UserError(
            f"batch size {batch_size} at ratio {list(ratio)} gives {n_pos} labelled and {n_unl} "
            f"unlabeled patches: a batch needs at least one of each, so make it larger"
        )
    return n_pos, n_unl


def _draws(
    indices: np.ndarray, size: int, start: int, seed: int, *names: str | int
) -> Iterator[np.ndarray]:
    """Cut an endless chain of permutations into (size,) pieces, from its element ``start`` on."""
    while not size:
        yield indices[:0]
    number, used = divmod(start, len(indices))
    left = stream(seed, "sampler", *names, number).permutation(indices)[used:]
    while True:
        while len(left) < size:
            number += 1
            more = stream(seed, "sampler", *names, number).permutation(indices)
            left = np.concatenate([left, more])
        yield left[:size]
        left = left[size:]
