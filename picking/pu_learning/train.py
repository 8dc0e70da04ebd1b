"""A run of PU learning: nnPU risk and FixMatch consistency; the method is `train_one_epoch`."""

import argparse
import contextlib
import copy
import dataclasses
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from picking.config import PUConfig, config_from_dict, plain, read_config
from picking.errors import UserError, raise_if_stopped
from picking.files import locked, read_json, write_json
from picking.metrics import classification
from picking.parallel import batch_loader, keep_freed_memory, reading_workers
from picking.pu_learning.inputs import Input, evaluate_split, open_input, score
from picking.pu_learning.log import (
    STEP_METRICS,
    epoch_metrics,
    log_end,
    log_epoch,
    log_split,
    log_start,
    results,
    step_metrics,
    warning_signs,
)
from picking.pu_learning.priors import resolve_priors
from picking.pu_learning.samplers import PUBatchSampler
from picking.pu_learning.state import State, load_best, update_average, uses_average
from picking.pu_learning.tensorboard import write_epoch, write_hyperparameters
from picking.runs import distributed
from picking.runs.checkpoints import load_weights, require_size, restored
from picking.runs.devices import use_deterministic_kernels
from picking.runs.folder import add_metrics, environment, keep_metrics, open_run, read_metrics
from picking.runs.log import open_log
from picking.runs.tensorboard import open_board
from picking.seeds import stream_seed
from picking.stores.patches import PatchStore
from picking.training import loop
from picking.training.losses import (
    adaptive_threshold,
    align_distribution,
    fixmatch_consistency,
    negative_risk,
    nnpu_risk,
    weak_probability,
)
from picking.training.networks import build_network
from picking.training.scoring import autocast

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> None:
    """Train and evaluate as the command line of train_pu_fixed_full.py says."""
    device, rank, world_size = distributed.start(args.device)
    if device.type == "cpu":
        keep_freed_memory()

    # 1. Config and data
    config, replaced_prior = resolve_config(args)
    if config.training.deterministic:
        use_deterministic_kernels()
    store_folder = Path(config.data.dir)
    train_data, val_data = (open_input(store_folder, name, config) for name in ("train", "val"))
    require_both_classes(val_data.store)
    sampler = PUBatchSampler(
        train_data.store,
        config.training.batch_size,
        config.data.batch_ratio,
        seed=config.training.seed,
        rank=rank,
        world_size=world_size,
    )

    with contextlib.ExitStack() as stack:
        # 2. Run folder; only the first process writes
        folder = args.experiments_dir / args.exp_name
        finished = args.resume and (folder / "results.json").exists()
        content_hash = train_data.store.metadata["content_hash"]
        distributed.require_same((config, content_hash, args.resume), "configuration or data")
        if rank == 0:
            stack.enter_context(locked(folder))
            open_run(folder, plain(config), content_hash, device, args.resume)
            (folder / "checkpoints").mkdir(exist_ok=True)
            stack.enter_context(open_log(None if finished else folder / "training.log"))
        if finished:
            logger.info("This run is finished: nothing to do")
            if rank == 0:
                log_end(read_json(folder / "results.json"), folder)
            return

        # 3. Network, optimiser and, on --resume, where they stood
        require_size(lambda: build_network(config))
        torch.manual_seed(stream_seed(config.training.seed, "init"))
        network = distributed.with_shared_statistics(build_network(config).to(device), device)
        state = State(
            network=network,
            average=copy.deepcopy(network).eval() if uses_average(config) else None,
            optimizer=loop.new_optimizer(network, config.optimizer),
            totals=torch.zeros(len(STEP_METRICS), dtype=torch.float64, device=device),
            adaptive=torch.full((3,), 0.5, device=device),
        )
        if args.resume and last_path(folder).exists():
            state.load(last_path(folder), device)
            logger.info(f"Resumed after {state.progress.epoch} epochs, step {state.progress.step}")
        if state.priors is None:
            state.priors = resolve_priors(config, train_data, device)
        _, n_steps = length_of_run(config, len(sampler))
        log_start(config, sampler, state.priors, replaced_prior, device, n_steps)
        if train_data.note:
            logger.info(train_data.note)
        board = None
        if rank == 0:
            board = open_board(folder, state.progress.epoch)
            stack.callback(board.close)

        # 4. Epochs
        loader = batch_loader(train_data, sampler, args.num_workers, device)
        with reading_workers():
            train(config, state, loader, sampler, val_data, folder, board)

        # 5. The best checkpoint, on validation and, once, on test
        distributed.wait_for_all()
        best = load_best(best_path(folder), device)
        load_weights(network, best["network"], best_path(folder))
        settings, threshold = config.training, best["threshold"]
        report = {"val": evaluate_split(network, val_data, threshold, settings, device)}
        if "test" in train_data.store.metadata["splits"]:
            test_data = open_input(store_folder, "test", config)
            report["test"] = evaluate_split(network, test_data, threshold, settings, device)
        if board is not None:
            last_epoch = read_metrics(folder / "metrics.jsonl", state.progress.epoch)[-1]
            content = results(
                report, best, state, n_steps, last_epoch["mask_rate"], val_data.truth_known
            )
            write_hyperparameters(board, config, content)
            write_json(folder / "results.json", content)  # last: it says "finished"
            log_end(content, folder)
    distributed.end()


def resolve_config(args: argparse.Namespace) -> tuple[PUConfig, float | None]:
    """Return the config and, where --use-data-prior replaced one, the number in loss.prior."""
    config, replaced_prior = read_config(args.config, args.set, PUConfig), None
    if args.data_dir:
        data = dataclasses.replace(config.data, dir=str(args.data_dir))
        config = dataclasses.replace(config, data=data)
    if args.use_data_prior and isinstance(config.loss.prior, float):
        replaced_prior = config.loss.prior
        loss = dataclasses.replace(config.loss, prior="pool")
        config = dataclasses.replace(config, loss=loss)
    return config, replaced_prior


def require_both_classes(store: PatchStore) -> None:
    """Raise `UserError` when a split holds one class only, so that AUC is not defined."""
    if store.label.all() or not store.label.any():
        raise UserError(
            f"split '{store.split}' of {store.folder} holds one class only, so no checkpoint can "
            "be chosen on it: make the store again with more validation images or another "
            "--neg-rule"
        )


def last_path(folder: Path) -> Path:
    """Return where a run keeps what it goes on from."""
    return folder / "checkpoints" / "last.pt"


def best_path(folder: Path) -> Path:
    """Return where a run keeps its best weights."""
    return folder / "checkpoints" / "best_model.pt"


def train(
    config: PUConfig,
    state: State,
    loader: DataLoader,
    sampler: PUBatchSampler,
    val_data: Input,
    folder: Path,
    board: SummaryWriter | None,
) -> None:
    """Run the epochs that are left; leaves best_model.pt and last.pt in the run folder.

    loader: batches of the ``sampler``. board: TensorBoard's writer, None but in the first process.
    """
    progress, settings = state.progress, config.training
    device, val_store = state.totals.device, val_data.store
    n_epochs, total_steps = length_of_run(config, len(sampler))
    model = loop.trained(state.network, settings.compile)
    recent: list[dict] = []  # epochs, as many as the warning signs look at
    if sampler.rank == 0:
        recent = keep_metrics(folder / "metrics.jsonl", progress.epoch)

    while progress.epoch < n_epochs and not stale(state, config):
        raise_if_stopped()
        sampler.set_epoch(progress.epoch, progress.batch)
        evaluated = state.average if settings.ema_decay else state.network
        assert evaluated is not None
        with loop.saving_on_stop(state, lambda: state.save(last_path(folder))):
            train_one_epoch(config, state, model, loader, sampler, total_steps, folder)
            distributed.take_buffers_of_first(evaluated)
            probability = score(evaluated, val_data, settings, device)
        trained = epoch_metrics(state.totals.tolist())
        loop.end_epoch(state)

        threshold = val_data.threshold(probability)
        val = classification.patch_metrics(
            val_store.label, probability, val_store.micrograph, threshold, n_bootstrap=0
        )
        del val["intervals"]
        kept = loop.note_best(progress, (val["auc"],), val_data.slack(val))
        rate = learning_rate(config, progress.step - 1, total_steps)
        place = {"epoch": progress.epoch, "step": progress.step}
        recent = [*recent[-2:], {**place, **trained, "val": val, "lr": rate}]
        if board is not None:
            keep_epoch(
                config, state, evaluated, val_data, probability, recent, n_epochs, kept, folder,
                board,
            )  # fmt: skip
    if progress.epoch < n_epochs:
        logger.info(
            f"Early stopping: no better validation AUC in {settings.early_stopping_patience} epochs"
        )


def keep_epoch(
    config: PUConfig,
    state: State,
    evaluated: nn.Module,
    val_data: Input,
    probability: np.ndarray,
    recent: list[dict],
    n_epochs: int,
    kept: bool,
    folder: Path,
    board: SummaryWriter,
) -> None:
    """Log and save what an epoch reached; only the first process does.

    evaluated: the network that was scored, or its average. probability: float64 (n,), its scores of
    ``val_data``. recent: metrics of up to three epochs, this one last. n_epochs: of the run. kept:
    whether the weights of this epoch are.
    """
    assert state.priors is not None
    metrics, progress = recent[-1], state.progress
    unlabeled_prior, val_store = state.priors.unlabeled_prior, val_data.store
    log_epoch(metrics, n_epochs, kept, progress)
    for sign in warning_signs(
        recent, progress.best_epoch, config, unlabeled_prior, val_data.truth_known
    ):
        logger.warning(f"  WARNING: {sign}")
    write_epoch(board, metrics, unlabeled_prior, val_store, probability, kept)
    # last.pt is written last: until then a killed run does this epoch again
    if kept:
        threshold = metrics["val"]["at_val_threshold"]["threshold"]
        state.save_best(
            best_path(folder), evaluated, plain(config), val_data.wants, threshold, metrics["val"]
        )
    add_metrics(folder / "metrics.jsonl", metrics)
    state.save(last_path(folder))


def train_one_epoch(
    config: PUConfig,
    state: State,
    model: nn.Module,
    loader: DataLoader,
    sampler: PUBatchSampler,
    total_steps: int,
    folder: Path,
) -> None:
    """Take the steps that are left of an epoch; add up `STEP_METRICS` in state.totals.

    model: calls state.network, compiled or shared. loader: batches of the ``sampler``, P first.
    total_steps: of the run. folder: of the run, for last.pt amid the epoch.
    """
    loss_config, settings, progress = config.loss, config.training, state.progress
    assert state.priors is not None
    prior, unlabeled_prior = state.priors.prior, state.priors.unlabeled_prior
    data: Any = loader.dataset
    device, n_p, n_u = state.totals.device, sampler.n_pos_per_process, sampler.n_unl_per_process
    ramp = min(1.0, (progress.epoch + 1) / max(1, loss_config.rampup_epochs))
    weight = loss_config.lambda_consistency * ramp
    generator = torch.Generator(device)
    model.train()
    loop.begin_epoch(state)

    title = f"Epoch {progress.epoch + 1}"
    for batch in loop.progress_bar(loader, title, len(sampler), progress.batch):
        step = progress.step
        if step >= total_steps:
            break
        # Streams of their own for every step: nothing depends on what was drawn before
        torch.manual_seed(stream_seed(settings.seed, "dropout", step, sampler.rank))
        generator.manual_seed(stream_seed(settings.seed, "views", step, sampler.rank))
        loop.set_rate(state.optimizer, learning_rate(config, step, total_steps))

        # One forward on [P weak, U weak, U strong], so that batch norm sees one distribution
        weak, strong, near = data.views(batch, n_p, generator)
        with autocast(settings.precision, device):
            z = model(torch.cat([weak, strong]))
        # Of windows, `near` says which places are labelled; all parts are of the global batch
        parts = (*z.float().split([n_p, n_u, n_u]), *near)
        z_p, z_u, z_s, *near = (distributed.from_all(part.flatten()) for part in parts)
        z_p, z_u = data.split(z_p, z_u, near)
        z_s = data.unlabeled(z_s, near)

        # nnPU: `objective` is differentiated, `risk` is reported
        objective, risk = nnpu_risk(
            z_p, z_u, prior, unlabeled_prior,
            loss_config.surrogate, loss_config.beta, loss_config.gamma,
        )  # fmt: skip
        r_minus = negative_risk(z_p.detach(), z_u.detach(), unlabeled_prior, loss_config.surrogate)

        # FixMatch: pseudo-labels from the weak views teach the strong ones
        z_t = z_u
        if settings.ema_teacher and state.average is not None:
            with torch.no_grad(), autocast(settings.precision, device):
                z_t = distributed.from_all(state.average(weak[n_p:]).float().flatten())
            z_t = data.unlabeled(z_t, near)
        q, threshold = pseudo_labels(config, state, z_t)
        consistency, mask = fixmatch_consistency(z_u, z_s, threshold, pseudo_probability=q)
        loss = objective + weight * consistency

        loop.take_step(state, loss, config.optimizer.grad_clip)
        if state.average is not None:
            update_average(state.average, state.network, settings.ema_decay or 0.999, step)
        state.totals += step_metrics(
            risk, weight * consistency, mask, q, clipped=r_minus < -loss_config.beta, z_u=z_u
        )
        if progress.step % settings.checkpoint_every_steps == 0:
            loop.require_finite(state)
            if sampler.rank == 0:
                state.save(last_path(folder))
        raise_if_stopped()
    loop.require_finite(state)


def pseudo_labels(config: PUConfig, state: State, z_t: Tensor) -> tuple[Tensor, float | Tensor]:
    """Return the probabilities (n,) that FixMatch teaches, and the confidence to count from.

    z_t: logits (n,) of weak views of the unlabeled, by the network or its average. Moves the
    running means in state.adaptive.
    """
    assert state.priors is not None
    q, threshold = weak_probability(z_t), config.loss.consistency_threshold
    if config.loss.distribution_alignment:
        state.adaptive[2].lerp_(q.mean(), 0.001)
        q = align_distribution(q, state.adaptive[2], state.priors.unlabeled_prior)
    if not config.loss.adaptive_threshold:
        return q, threshold
    adapted, state.adaptive[:2] = adaptive_threshold(q, state.adaptive[:2])
    return q, adapted


def length_of_run(config: PUConfig, steps_per_epoch: int) -> tuple[int, int]:
    """Return epochs and steps: training.epochs, cut short by training.max_steps."""
    total_steps = config.training.epochs * steps_per_epoch
    total_steps = min(total_steps, config.training.max_steps or total_steps)
    return math.ceil(total_steps / steps_per_epoch), total_steps


def learning_rate(config: PUConfig, step: int, total_steps: int) -> float:
    """Return the rate of a step: constant, or half a cosine from lr to 0."""
    highest = config.optimizer.lr
    lowest = highest if config.optimizer.scheduler == "constant" else 0.0
    return loop.cosine(step, total_steps, highest, lowest)


def stale(state: State, config: PUConfig) -> bool:
    """Return whether early stopping is due."""
    epochs_since = state.progress.epoch - state.progress.best_epoch
    return epochs_since >= config.training.early_stopping_patience


def evaluate_checkpoint(args: argparse.Namespace) -> None:
    """Evaluate a best_model.pt on one split of a store and write its metrics to --output."""
    device, rank, _ = distributed.start(args.device)
    output = args.output or args.evaluate.parent / f"evaluation_{args.split}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    best = load_best(args.evaluate, device)
    config = config_from_dict(best["config"], str(args.evaluate), PUConfig)
    data = open_input(args.data_dir, args.split, config)
    network = restored(lambda: build_network(config), best["network"], args.evaluate, device)
    report = evaluate_split(network, data, best["threshold"], config.training, device)
    if rank == 0:
        content = {
            args.split: report,
            "threshold": best["threshold"],
            "epochs_run": best["epoch"],
            **best["priors"],
            "checkpoint": str(args.evaluate),
            "data_dir": str(args.data_dir),
            "versions": environment()["versions"],
        }
        write_json(output, content)
        with open_log():
            log_split(args.split, report)
        print(f"Wrote {output}")
    distributed.end()
