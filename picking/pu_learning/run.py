"""A run of PU learning, from the command line to results.json; its epochs are in train.py."""

import argparse
import contextlib
import copy
import dataclasses
import logging
from pathlib import Path

import numpy as np
import torch
from torch import nn

from picking.config import PUConfig, TrainingConfig, config_from_dict, plain, read_config
from picking.errors import UserError
from picking.files import locked, read_json, write_json
from picking.metrics import classification
from picking.parallel import batch_loader, keep_freed_memory, reading_workers
from picking.pu_learning import log
from picking.pu_learning.inputs import Input, open_input, score
from picking.pu_learning.priors import eta_of, resolve_priors
from picking.pu_learning.samplers import PUBatchSampler
from picking.pu_learning.state import BEST, LAST, State, keep_calibration, load_best
from picking.pu_learning.tensorboard import write_hyperparameters
from picking.pu_learning.train import STEP_METRICS, length_of_run, train
from picking.runs import distributed
from picking.runs.checkpoints import load_weights, require_size, restored
from picking.runs.devices import use_deterministic_kernels
from picking.runs.folder import environment, open_run, read_metrics
from picking.runs.log import open_log
from picking.runs.tensorboard import open_board
from picking.stores.patches import PatchStore
from picking.training import loop
from picking.training.initial_weights import read_initial_weights, require_initial_weights
from picking.training.networks import build_network, new_network

logger = logging.getLogger(__name__)

KEY = "training.initial_weights"


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
    begins = not (args.resume and (folder / LAST).exists())
    if begins and config.training.initial_weights is not None:  # refused before there is a folder
        require_initial_weights(config.training.initial_weights, config, KEY)
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
            state.load(folder / LAST, device)
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
        best = load_best(folder / BEST, device)
        load_weights(state.network, best["network"], folder / BEST)
        settings, threshold = config.training, best["threshold"]
        if rank == 0:  # before anything else is evaluated, which all processes do together
            prior = state.priors.unlabeled_prior
            calibration = val_data.calibration(state.network, prior, settings, device)
            keep_calibration(folder / BEST, best, calibration)
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
    network = new_network(config, "init")
    if begins and (named := config.training.initial_weights) is not None:
        network.load_state_dict(read_initial_weights(named, network, config.model, KEY))
    network = distributed.with_shared_statistics(network.to(device), device)
    has_average = config.training.ema_decay > 0 or config.training.ema_teacher
    keeps_initial = begins and config.training.initial_share > 0
    return State(
        network=network,
        average=copy.deepcopy(network).eval() if has_average else None,
        initial=copy.deepcopy(network.state_dict()) if keeps_initial else None,
        optimizer=loop.new_optimizer(network, config.optimizer),
        totals=torch.zeros(len(STEP_METRICS), dtype=torch.float64, device=device),
        adaptive=torch.full((3,), 0.5, device=device),
    )


def require_both_classes(store: PatchStore) -> None:
    """Raise `UserError` when a split holds one class only, so that AUC is not defined."""
    if store.label.all() or not store.label.any():
        raise UserError(
            f"split '{store.split}' of {store.folder} holds one class only, so no checkpoint can "
            "be chosen on it: make the store again with more validation images or another "
            "--neg-rule"
        )


def evaluate_split(
    network: nn.Module,
    data: Input,
    threshold: float,
    settings: TrainingConfig,
    device: torch.device,
) -> dict:
    """Return all metrics of a split, with intervals, at 0.5 and at ``threshold``."""
    store, probability = data.store, score(network, data, settings, device)
    ids = np.array([name or "unknown" for name in store.ids])[store.micrograph]
    report = classification.patch_metrics(
        store.label,
        probability,
        store.micrograph,
        threshold,
        ids=ids if any(store.ids) else None,
        n_bootstrap=settings.bootstrap_samples,
        seed=settings.seed,
    )
    called = probability >= threshold
    fraction = float(called.mean()) if len(called) else None
    report["at_val_threshold"]["predicted_positive_share"] = fraction
    return report


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
