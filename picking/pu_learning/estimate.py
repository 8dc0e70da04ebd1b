"""The two priors of the risk; π_U by a classifier and best bins where nothing is known."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from picking.config import PUConfig
from picking.errors import UserError
from picking.preprocessing.windows import PickedWindows
from picking.pu_learning import priors
from picking.pu_learning.samplers import PUBatchSampler
from picking.pu_learning.state import Priors
from picking.runs import distributed
from picking.seeds import stream, stream_seed
from picking.stores.patches import PatchStore
from picking.training.augment import to_float, weak_view, window_views
from picking.training.networks import build_network
from picking.training.scoring import score, to_input


def resolve_priors(config: PUConfig, store: PatchStore, device: torch.device) -> Priors:
    """Return the two priors of the risk from the config, the store's counts or an estimate.

    Raises `UserError` when one is not known, or is none of a share.
    """
    loss, counts = config.loss, store.counts
    prior, prior_source = None, "data"
    if isinstance(loss.prior, float):
        prior, prior_source = loss.prior, "config"
    else:
        prior = counts[f"{loss.prior}_prior"]
    unlabeled, source = None, "data"
    if isinstance(loss.unlabeled_prior, float):
        unlabeled, source = loss.unlabeled_prior, "config"
    elif loss.unlabeled_prior == "data":
        unlabeled = counts["unlabeled_prior"]
    nothing_known = store.windows is not None and unlabeled is None
    if loss.one_prior and prior is not None:
        unlabeled, source = prior, prior_source
    elif loss.unlabeled_prior == "estimate" or nothing_known:
        torch.manual_seed(stream_seed(config.training.seed, "estimate", "init"))
        network = build_network(config).to(device)
        unlabeled, source = estimate_unlabeled_prior(network, config, store, device), "estimate"
    if prior is None and unlabeled is not None:  # pool: the labelled, and the share of the others
        actual = counts["actual_prior"] or 0.0
        prior, prior_source = actual + (1 - actual) * unlabeled, source
    if prior is None or unlabeled is None or not 0 < prior < 1 or not 0 <= unlabeled < 1:
        raise UserError(
            f"the priors are {prior} ({prior_source}) and {unlabeled} among the unlabeled "
            f"({source}), but must lie between 0 and 1: there are too few negatives or "
            "positives in the store, or loss.prior needs a number"
        )
    return Priors(prior, prior_source, unlabeled, source)


def estimate_unlabeled_prior(
    network: nn.Module, config: PUConfig, store: PatchStore, device: torch.device
) -> float:
    """Estimate the share of positives among the unlabeled: P against U, then best bins.

    ``network``, a new one, learns on half of the micrographs to tell labelled from unlabeled; its
    scores on the other half go to `priors.best_bin_estimate`. An upper bound where the classes
    overlap. Raises `UserError` when a half lacks labelled or unlabeled patches.
    """
    seed, n_micrographs = config.training.seed, len(store.names)
    rng = stream(seed, "estimate", "halves")
    picked = np.unique(store.micrograph[store.labeled])
    # Half of those with labels and half of the others
    shuffled = [rng.permutation(m) for m in (picked, np.setdiff1d(store.micrograph, picked))]
    fitted = np.isin(store.micrograph, np.concatenate([m[: len(m) // 2] for m in shuffled]))
    fit_rows, held_rows = np.flatnonzero(fitted), np.flatnonzero(~fitted)
    for rows in (fit_rows, held_rows):
        if store.labeled[rows].all() or not store.labeled[rows].any():
            raise UserError(
                "loss.unlabeled_prior 'estimate' needs labelled and unlabeled patches in both "
                f"halves of the {n_micrographs} training micrographs: give a number, or make the "
                "store of a few picks with --expected-particles"
            )
    sampler = PUBatchSampler(
        store.labeled[fit_rows], config.training.batch_size, config.data.batch_ratio, seed=seed
    )
    generator = torch.Generator(device).manual_seed(stream_seed(seed, "estimate", "views"))
    optimizer = torch.optim.AdamW(network.parameters(), config.optimizer.lr)
    # Each process takes all of these steps, few beside a run's: the estimate is that of one process
    for step in range(config.loss.estimate_steps):
        if step % len(sampler) == 0:
            sampler.set_epoch(step // len(sampler))
            batches = iter(sampler)
        rows, n_p = fit_rows[next(batches)], sampler.n_pos_per_batch
        if store.windows is None:
            patches = to_input(store[rows], config, device)
            z = network(weak_view(patches, generator, config.augmentation))
            z_p, z_u = z[:n_p], z[n_p:]
        else:
            whole, places = (torch.as_tensor(a).to(device) for a in PickedWindows(store)[rows])
            weak, _, near = window_views(
                whole, places, n_p, config.data.input_size_px,
                store.windows["reach_px"], generator, config.augmentation,
            )  # fmt: skip
            z = network(weak)[:, 0]
            z_p, z_u = z[near], z[n_p:][~near[n_p:]]
        loss = F.softplus(-z_p).mean() + F.softplus(z_u).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    labeled = store.labeled[held_rows]
    others = ~labeled
    if store.windows is None:
        scores = score(network, config, store, device)[held_rows]
    else:
        scores = _window_scores(network, config, store, held_rows, device)
        assert store.picked is not None
        middle = store.patch_size_px // 2
        others &= store.picked[held_rows, middle, middle] == 0  # U are the places near no pick
    estimate = priors.best_bin_estimate(scores[labeled], scores[others])
    # GPUs round differently; all processes must use the same number
    return float(distributed.from_all(torch.tensor([estimate], device=device))[0])


@torch.no_grad()
def _window_scores(
    network: nn.Module, config: PUConfig, store: PatchStore, rows: np.ndarray, device: torch.device
) -> np.ndarray:
    """Return a probability for each window: of its middle, or of a place near its pick, (n,).

    Positives among the unlabeled lie anywhere near a particle; the labelled must too. Every process
    scores its share and gets all of them.
    """
    assert store.windows is not None
    network.eval()
    reach = int(store.windows["reach_px"])
    offsets = np.argwhere(np.ones((2 * reach + 1,) * 2)) - reach
    offsets = offsets[(offsets**2).sum(axis=1) <= reach**2]
    rng = stream(config.training.seed, "estimate", "places")
    moved = {row: rng.choice(offsets) for row in rows[store.labeled[rows]]}
    found = torch.zeros(len(rows), dtype=torch.float64, device=device)
    n_parts = math.ceil(len(rows) / config.training.eval_batch_size)
    rank, world_size = distributed.place()
    for part in np.array_split(np.arange(len(rows)), n_parts)[rank::world_size]:
        windows = store[rows[part]]
        for i in np.flatnonzero(store.labeled[rows[part]]):
            windows[i] = np.roll(windows[i], moved[rows[part][i]], axis=(0, 1))
        middle = to_input(windows, config, device, windows=True)
        z = network(to_float(middle))[:, 0]
        side_px = config.data.input_size_px
        found[part] = torch.sigmoid(z[:, side_px // 2, side_px // 2].double())
    distributed.add_up(found)
    return found.cpu().numpy()
