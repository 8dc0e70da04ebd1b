"""π_U when nothing is known about the unlabeled patches: a classifier, then best bins."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from picking import priors, runs
from picking.augment import weak_view, window_views
from picking.config import PUConfig
from picking.errors import UserError
from picking.patches import PatchStore
from picking.samplers import PUBatchSampler
from picking.scoring import score, to_input
from picking.streams import stream, stream_seed


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
            weak, _, near = window_views(
                torch.as_tensor(store[rows]).to(device), n_p, config.data.input_size_px,
                store.windows["reach_px"], generator, config.augmentation,
            )  # fmt: skip
            z = network(weak)[:, 0]
            z_p, z_u = z[:n_p][near], z[n_p:]
        loss = F.softplus(-z_p).mean() + F.softplus(z_u).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    scores = score(network, config, store, device)[held_rows]
    labeled = store.labeled[held_rows]
    estimate = priors.best_bin_estimate(scores[labeled], scores[~labeled])
    # GPUs round differently; all processes must use the same number
    return float(runs.from_all_processes(torch.tensor([estimate], device=device))[0])
