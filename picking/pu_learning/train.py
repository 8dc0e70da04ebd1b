"""A run of PU learning: PU or PNU risk and FixMatch; the method is `train_one_epoch`."""

import argparse
import contextlib
import copy
import dataclasses
import logging
import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from picking.config import PUConfig, config_from_dict, plain, read_config
from picking.errors import UserError, raise_if_stopped
from picking.files import locked, read_json, write_json
from picking.metrics import classification
from picking.parallel import batch_loader, keep_freed_memory, reading_workers
from picking.pu_learning import log
from picking.pu_learning.inputs import Input, evaluate_split, open_input, score
from picking.pu_learning.priors import eta_of, resolve_priors
from picking.pu_learning.samplers import PUBatchSampler
from picking.pu_learning.state import (
    State,
    keep_calibration,
    load_best,
    mix_initial,
    update_average,
)
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
from picking.training.initial_weights import read_initial_weights
from picking.training.losses import (
    adaptive_threshold,
    align_distribution,
    fixmatch_consistency,
    negative_risk,
    pnu_risk,
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
    if config.training.initial_share and config.training.initial_weights is None:
        raise UserError(
            f"training.initial_share is {config.training.initial_share:g}, a share of "
            "training.initial_weights, which is null: set it to 0, or name weights"
        )
    if config.training.deterministic:
        use_deterministic_kernels()
    store_folder = Path(config.data.dir)
    train_data, val_data = (open_input(store_folder, name, config) for name in ("train", "val"))
    require_both_classes(val_data.store)
    folder = args.experiments_dir / args.exp_name
    begins = not (args.resume and last_path(folder).exists())
    if begins and config.training.initial_weights is not None:  # refused before there is a folder
        with torch.device("meta"):
            initial_weights(config, build_network(config))
    sampler = PUBatchSampler(
        train_data.store.labeled,
        config.training.batch_size,
        config.data.batch_ratio,
        seed=config.training.seed,
        rank=rank,
        world_size=world_size,
        negative=train_data.store.about_negative,
    )

    with contextlib.ExitStack() as stack:
        # 2. Run folder; only the first process writes
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
                log.log_end(read_json(folder / "results.json"), folder)
            return

        # 3. Network, optimiser and, on --resume, where they stood
        state = new_state(config, device, begins)
        if not begins:
            state.load(last_path(folder), device)
            logger.info(f"Resumed after {state.progress.epoch} epochs, step {state.progress.step}")
        else:
            state.priors = resolve_priors(config, train_data, device)
            if config.training.initial_weights is not None:
                logger.info(f"Starting from {config.training.initial_weights}")
        _, n_steps = length_of_run(config, len(sampler))
        eta = eta_of(config, state.priors, train_data.store)
        log.log_start(config, sampler, state.priors, replaced_prior, eta, device, n_steps)
        if train_data.note:
            logger.info(train_data.note)
        board = stack.enter_context(open_board(folder, state.progress.epoch))

        # 4. Epochs
        loader = batch_loader(train_data, sampler, args.num_workers, device)
        with reading_workers():
            train(config, state, loader, sampler, val_data, folder, board, eta)

        # 5. The best checkpoint, on validation and, once, on test
        distributed.wait_for_all()
        best = load_best(best_path(folder), device)
        load_weights(state.network, best["network"], best_path(folder))
        settings, threshold = config.training, best["threshold"]
        if rank == 0:  # before anything else is evaluated, which all processes do together
            prior = state.priors.unlabeled_prior
            calibration = val_data.calibration(state.network, prior, settings, device)
            keep_calibration(best_path(folder), best, calibration)
        report = {"val": evaluate_split(state.network, val_data, threshold, settings, device)}
        if "test" in train_data.store.metadata["splits"]:
            test_data = open_input(store_folder, "test", config)
            report["test"] = evaluate_split(state.network, test_data, threshold, settings, device)
        if board is not None:
            last_epoch = read_metrics(folder / "metrics.jsonl", state.progress.epoch)[-1]
            content = log.results(
                report, best, state, n_steps, last_epoch["mask_rate"], val_data.truth_known
            )
            write_hyperparameters(board, config, content)
            write_json(folder / "results.json", content)  # last: it says "finished"
            log.log_end(content, folder)


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


def new_state(config: PUConfig, device: torch.device, begins: bool = True) -> State:
    """Return what a run starts from, without its priors; what a resumed one loads its state into.

    begins: take the initial weights, if the config names any.
    """
    require_size(lambda: build_network(config))
    torch.manual_seed(stream_seed(config.training.seed, "init"))
    network = build_network(config)
    if begins and config.training.initial_weights is not None:
        network.load_state_dict(initial_weights(config, network))
    network = distributed.with_shared_statistics(network.to(device), device)
    has_average = config.training.ema_decay > 0 or config.training.ema_teacher
    keeps_initial = begins and config.training.initial_share > 0
    return State(
        network=network,
        average=copy.deepcopy(network).eval() if has_average else None,
        initial=copy.deepcopy(network.state_dict()) if keeps_initial else None,
        optimizer=loop.new_optimizer(network, config.optimizer),
        totals=torch.zeros(len(log.STEP_METRICS), dtype=torch.float64, device=device),
        adaptive=torch.full((3,), 0.5, device=device),
    )


def initial_weights(config: PUConfig, network: nn.Module) -> dict[str, Any]:
    """Return the weights that ``network``, a new one, starts with."""
    named = str(config.training.initial_weights)
    return read_initial_weights(named, network, config.model, "training.initial_weights")


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
    eta: float,
) -> None:
    """Run the epochs that are left; leaves best_model.pt and last.pt in the run folder.

    state: where the run stands. loader: batches of the ``sampler``. val_data: what chooses the best
    weights. folder: of the run. board: TensorBoard's writer, None but in the first process. eta: of
    the PNU risk.
    """
    progress, settings, val_store = state.progress, config.training, val_data.store
    n_epochs, n_steps = length_of_run(config, len(sampler))
    model = loop.trained(state.network, settings.compile)
    learned: Any = state.average if settings.ema_decay else state.network
    evaluated = learned if state.initial is None else copy.deepcopy(learned)
    metrics_path, last = folder / "metrics.jsonl", last_path(folder)
    unlabeled_prior, patience = state.priors.unlabeled_prior, settings.early_stopping_patience
    recent = keep_metrics(metrics_path, progress.epoch)

    while progress.epoch < n_epochs and progress.epoch - progress.best_epoch < patience:
        raise_if_stopped()
        sampler.set_epoch(progress.epoch, progress.batch)
        with loop.saving_on_stop(state, lambda: state.save(last)):
            train_one_epoch(config, state, model, loader, sampler, n_steps, last, eta)
            distributed.take_buffers_of_first(learned)
            if state.initial is not None:
                mix_initial(evaluated, learned, state.initial, settings.initial_share)
            probability = score(evaluated, val_data, settings, state.totals.device)
        trained = log.epoch_metrics(state.totals.tolist())
        loop.end_epoch(state)

        threshold = val_data.threshold(probability)
        val = classification.patch_metrics(
            val_store.label, probability, val_store.micrograph, threshold, n_bootstrap=0
        )
        del val["intervals"]
        kept = loop.note_best(progress, (val["auc"],), val_data.slack(val))
        rate = learning_rate(config, progress.step - 1, n_steps)
        place = {"epoch": progress.epoch, "step": progress.step}
        recent = [*recent[-2:], {**place, **trained, "val": val, "lr": rate}]
        log.log_epoch(recent[-1], n_epochs, kept, progress)
        for sign in log.warning_signs(
            recent, progress, config, unlabeled_prior, val_data.truth_known
        ):
            logger.warning(f"  WARNING: {sign}")
        write_epoch(board, recent[-1], unlabeled_prior, val_store, probability, kept)
        # last.pt is written last: until then a killed run does this epoch again
        if kept:
            best = best_path(folder)
            state.save_best(best, evaluated, plain(config), val_data.wants, threshold, val)
        add_metrics(metrics_path, recent[-1])
        state.save(last)
    if progress.epoch < n_epochs:
        logger.info(f"Early stopping: no better validation AUC in {patience} epochs")


def train_one_epoch(
    config: PUConfig,
    state: State,
    model: nn.Module,
    loader: DataLoader,
    sampler: PUBatchSampler,
    n_steps: int,
    last: Path,
    eta: float,
) -> None:
    """Take the steps that are left of an epoch; add up `STEP_METRICS` in state.totals.

    state: where the run stands. model: calls state.network, compiled or shared. loader: batches of
    the ``sampler``, P first, then N, then U. n_steps: of the run. last: where the state is saved
    amid the epoch. eta: of the PNU risk.
    """
    settings, loss, priors = config.training, config.loss, state.priors
    data, device = cast(Input, loader.dataset), state.totals.device
    weight = consistency_weight(config, state.progress.epoch)
    n_p, n_n = sampler.n_pos_per_process, sampler.n_neg_per_process
    model.train()

    title = f"Epoch {state.progress.epoch + 1}"
    for batch in loop.batches_left(state, loader, title, len(sampler), n_steps):
        step = state.progress.step
        torch.manual_seed(stream_seed(settings.seed, "dropout", step, sampler.rank))
        generator = loop.generator(device, settings.seed, "views", step, sampler.rank)
        loop.set_rate(state.optimizer, learning_rate(config, step, n_steps))

        # One forward on [P weak, N weak, U weak, U strong]: batch norm sees one distribution
        weak, strong, known = data.views(batch, n_p, n_n, generator)
        with autocast(settings.precision, device):
            z = model(torch.cat([weak, strong]))
        # Of windows, `places` says what is known of each; all parts are of the global batch
        parts = (*z.float().split([n_p, n_n, len(strong), len(strong)]), *known)
        z_p, z_n, z_u, z_s, *places = (distributed.from_all(part.flatten()) for part in parts)
        z_p, z_u, z_n, weights_n = data.split(z_p, z_n, z_u, places)

        # PNU, or nnPU where there are no negatives: `objective` is differentiated, `risk` reported
        prior, prior_u = priors.prior, priors.unlabeled_prior
        objective, risk = pnu_risk(
            z_p, z_u, z_n, prior, prior_u, eta, loss.surrogate, loss.beta, loss.gamma, weights_n
        )
        r_minus = negative_risk(z_p.detach(), z_u.detach(), prior_u, loss.surrogate)

        # FixMatch: pseudo-labels from the weak views, by the average if that teaches
        z_t = z_u
        if settings.ema_teacher:
            z_t = data.unlabeled(teacher_logits(config, state, weak[n_p + n_n :]), places)
        q, threshold = pseudo_labels(config, state, z_t)
        z_s = data.unlabeled(z_s, places)
        consistency, mask = fixmatch_consistency(z_u, z_s, threshold, pseudo_probability=q)
        consistency = weight * consistency

        loop.take_step(state, objective + consistency, config.optimizer.grad_clip)
        update_average(state, settings.ema_decay or 0.999, step)
        clipped = r_minus < -loss.beta
        state.totals += log.step_metrics(risk, consistency, mask, q, clipped, z_u, z_n)
        state.save_every(settings.checkpoint_every_steps, last)


def consistency_weight(config: PUConfig, epoch: int) -> float:
    """Return the weight of FixMatch's loss in an epoch, from 0: it rises along a ramp."""
    ramp = min(1.0, (epoch + 1) / max(1, config.loss.rampup_epochs))
    return config.loss.lambda_consistency * ramp


def teacher_logits(config: PUConfig, state: State, weak: Tensor) -> Tensor:
    """Return what the average says of all processes' weak views, (n, 1, s, s) here: (m,)."""
    assert state.average is not None
    with torch.no_grad(), autocast(config.training.precision, weak.device):
        return distributed.from_all(state.average(weak).float().flatten())


def pseudo_labels(config: PUConfig, state: State, z_t: Tensor) -> tuple[Tensor, float | Tensor]:
    """Return the probabilities (n,) that FixMatch teaches, and the confidence to count from.

    z_t: logits (n,) of weak views of the unlabeled, by the network or its average. Moves the
    running means in state.adaptive.
    """
    q, threshold = weak_probability(z_t), config.loss.consistency_threshold
    if not len(q):  # everything in the batch is known
        return q, threshold
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


def evaluate_checkpoint(args: argparse.Namespace) -> None:
    """Evaluate a best_model.pt on one split of a store and write its metrics to --output."""
    output = args.output or args.evaluate.parent / f"evaluation_{args.split}.json"
    if output.name == "results.json" and (output.parent / "config.yaml").exists():
        raise UserError(f"--output {output} is the results of a run: choose another name")
    device, rank, _ = distributed.start(args.device)
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
            log.log_split(args.split, report)
        print(f"Wrote {output}")
