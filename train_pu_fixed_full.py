"""Train a patch classifier on positive and unlabeled patches: nnPU risk and FixMatch consistency.

    python train_pu_fixed_full.py --config configs/pu_full_fixed.yaml --exp-name pu_full_fixed \
        --device cuda:0 --num-workers 8 --use-data-prior
    python train_pu_fixed_full.py ... --resume                  # goes on as if never stopped
    torchrun --nproc-per-node 4 train_pu_fixed_full.py ... --device cuda   # a process a GPU
    python train_pu_fixed_full.py --evaluate experiments/pu_full_fixed/checkpoints/best_model.pt \
        --data-dir data/cryotransformer_full_pu --split test --output results.json

Writes experiments/<exp-name>/; watch it with `tensorboard --logdir experiments/`.
"""

import argparse
from pathlib import Path


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", type=Path, default=Path("configs/pu_full_fixed.yaml"))
    add("--exp-name", default="pu_full_fixed", help="names the run's folder in --experiments-dir")
    add("--experiments-dir", type=Path, default=Path("experiments"))
    add("--data-dir", type=Path, help="patch store; default: data.dir of the config")
    add("--device", default="auto", help="cpu, cuda:0, ..., or auto for the best there is")
    add(
        "--num-workers",
        type=int,
        default=0,
        help="processes that read patches; 0 is fastest unless the store lies on a slow disk",
    )
    add("--use-data-prior", action="store_true", help="loss.prior: actual, unless pool")
    add("--resume", action="store_true", help="go on with the run, if there is one")
    add(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a config value, e.g. training.seed=1; repeatable",
    )
    add("--evaluate", type=Path, metavar="CHECKPOINT", help="only evaluate this best_model.pt")
    add("--split", default="test", choices=("train", "val", "test"), help="with --evaluate")
    add("--output", type=Path, default=Path("results.json"), help="with --evaluate")
    return parser


if __name__ == "__main__":
    argument_parser().parse_args()  # --help and unknown flags are answered before torch is imported

import contextlib
import copy
import dataclasses
import math
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from picking.config import PUConfig, config_from_dict, plain, read_config
from picking.errors import STOPPED, UserError, allow_stop, hold_stop, run_script
from picking.files import locked, read_json, write_json
from picking.metrics import classification
from picking.parallel import batch_loader, keep_freed_memory, reading_workers
from picking.pu_learning import log as reports
from picking.pu_learning import tensorboard
from picking.pu_learning.inputs import Input, evaluate_split, open_input, score
from picking.pu_learning.priors import resolve_priors
from picking.pu_learning.samplers import PUBatchSampler
from picking.pu_learning.state import (
    Progress,
    State,
    load_best,
    require_place,
    update_average,
    uses_average,
)
from picking.runs import checkpoints, distributed
from picking.runs import folder as runs
from picking.seeds import stream_seed
from picking.stores.patches import PatchStore
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

CHECK_FINITE_EVERY = 50  # steps; looking at every loss would make a GPU wait


def main() -> None:
    """Train and evaluate, or with --evaluate only evaluate."""
    args = argument_parser().parse_args()
    if args.num_workers < 0:
        raise UserError(f"--num-workers is {args.num_workers}: choose 0 or more")
    device, rank, world_size = distributed.start(args.device)
    if device.type == "cpu":
        keep_freed_memory()
    if args.evaluate:
        evaluate_checkpoint(args, device)
        return

    # 1. Config and data
    config = read_config(args.config, args.set, PUConfig)
    if args.data_dir:
        data = dataclasses.replace(config.data, dir=str(args.data_dir))
        config = dataclasses.replace(config, data=data)
    if args.use_data_prior and not isinstance(config.loss.prior, str):
        loss = dataclasses.replace(config.loss, prior="actual")
        config = dataclasses.replace(config, loss=loss)
    if Path(args.exp_name).name != args.exp_name or args.exp_name in ("", ".."):
        raise UserError(f"--exp-name '{args.exp_name}' must be the name of a folder, not a path")
    if config.training.deterministic:
        runs.use_deterministic_kernels()
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
            runs.open_run(folder, plain(config), content_hash, device, args.resume)
            (folder / "checkpoints").mkdir(exist_ok=True)
            if finished:
                print("This run is finished: nothing to do")
                reports.log_end(print, read_json(folder / "results.json"), folder)
        if finished:
            return
        log = runs.open_log(folder / "training.log" if rank == 0 else None)

        # 3. Network, optimiser and, on --resume, where they stood
        checkpoints.require_size(lambda: build_network(config))
        torch.manual_seed(stream_seed(config.training.seed, "init"))
        network = distributed.with_shared_statistics(build_network(config).to(device), device)
        optimizer = runs.new_optimizer(network, config.optimizer)
        state = State(
            network=network,
            average=copy.deepcopy(network).eval() if uses_average(config) else None,
            optimizer=optimizer,
            totals=torch.zeros(len(reports.STEP_FIGURES), dtype=torch.float64, device=device),
            adaptive=torch.full((3,), 0.5, device=device),
        )
        last_path = folder / "checkpoints" / "last.pt"
        if args.resume and last_path.exists():
            state.load(last_path, device)
            require_place(
                state.progress, *length_of_run(config, len(sampler)), len(sampler), last_path
            )
            log(f"Resumed after {state.progress.epoch} epochs, step {state.progress.step}")
        if state.priors is None:
            state.priors = resolve_priors(config, train_data, device)
        _, n_steps = length_of_run(config, len(sampler))
        reports.log_start(log, config, sampler, state.priors, device, n_steps)
        if train_data.note:
            log(train_data.note)
        board = None
        if rank == 0:
            board = tensorboard.open_board(folder, state.progress.epoch)
            stack.callback(board.close)

        # 4. Epochs
        loader = batch_loader(train_data, sampler, args.num_workers, device)
        with reading_workers():
            train(config, state, loader, sampler, val_data, folder, device, log, board)

        # 5. The best checkpoint, on validation and, once, on test
        distributed.wait_for_all()
        best_path = folder / "checkpoints" / "best_model.pt"
        best = load_best(best_path, device)
        runs.load_weights(network, best["network"], best_path)
        settings, threshold = config.training, best["threshold"]
        report = {"val": evaluate_split(network, val_data, threshold, settings, device)}
        if "test" in train_data.store.metadata["splits"]:
            test_data = open_input(store_folder, "test", config)
            report["test"] = evaluate_split(network, test_data, threshold, settings, device)
        if rank == 0:
            last_epoch = runs.read_metrics(folder / "metrics.jsonl", state.progress.epoch)[-1]
            results = reports.results(
                report, best, state, n_steps, last_epoch["mask_rate"], val_data.truth_known
            )
            tensorboard.write_hyperparameters(board, config, results)
            write_json(folder / "results.json", results)  # last: it says "finished"
            reports.log_end(log, results, folder)


def require_both_classes(store: PatchStore) -> None:
    """Raise `UserError` when a split holds one class only, so that AUC is not defined."""
    if store.label.all() or not store.label.any():
        raise UserError(
            f"split '{store.split}' of {store.folder} holds one class only, so no checkpoint can "
            "be chosen on it: make the store again with more validation images or another "
            "--neg-rule"
        )


def train(
    config: PUConfig,
    state: State,
    loader: DataLoader,
    sampler: PUBatchSampler,
    val_data: Input,
    folder: Path,
    device: torch.device,
    log: runs.Log,
    board: Any,
) -> None:
    """Run the epochs that are left; leaves best_model.pt and last.pt in the run folder."""
    progress, settings = state.progress, config.training
    n_epochs, total_steps = length_of_run(config, len(sampler))
    model = torch.compile(state.network) if settings.compile else state.network
    model = distributed.with_shared_gradients(model)
    recent: list[dict] = []  # epochs, as many as the warning signs look at
    if sampler.rank == 0:
        recent = runs.keep_metrics(folder / "metrics.jsonl", progress.epoch)

    while progress.epoch < n_epochs and not stale(progress, config):
        allow_stop()
        sampler.set_epoch(progress.epoch, progress.batch)
        evaluated = state.average if settings.ema_decay else state.network
        try:
            train_one_epoch(config, state, model, loader, sampler, total_steps, folder, device)
            distributed.take_buffers_of_first(evaluated)
            probability = score(evaluated, val_data, settings, device)
            hold_stop()  # until last.pt is written
        except STOPPED:  # between two steps, or after the last
            whole = sampler.world_size == 1
            if whole and runs.all_finite(state.totals, *state.network.parameters()):
                state.save(folder / "checkpoints" / "last.pt")
            raise
        figures = reports.epoch_figures(state.totals.tolist())
        threshold = val_data.threshold(probability)
        val = classification.patch_metrics(
            val_data.store.label, probability, val_data.store.micrograph, threshold, n_bootstrap=0
        )
        del val["intervals"]
        progress.epoch, progress.batch = progress.epoch + 1, 0
        state.totals.zero_()
        is_best = val["auc"] > progress.best_auc - val_data.slack(val)
        if val["auc"] > progress.best_auc:
            progress.best_auc, progress.best_epoch = val["auc"], progress.epoch
        if sampler.rank != 0:
            continue

        figures = {"epoch": progress.epoch, "step": progress.step, **figures, "val": val}
        figures["lr"] = learning_rate(config, progress.step - 1, total_steps)
        recent = [*recent[-2:], figures]
        unlabeled_prior = state.priors.unlabeled_prior
        reports.log_epoch(log, figures, n_epochs, is_best)
        for sign in reports.warning_signs(
            recent, progress.best_epoch, config, unlabeled_prior, val_data.truth_known
        ):
            log(f"  WARNING: {sign}")
        tensorboard.write_epoch(
            board, figures, unlabeled_prior, val_data.store, probability, is_best
        )
        # last.pt is written last: until then a killed run does this epoch again
        if is_best:
            best_path = folder / "checkpoints" / "best_model.pt"
            state.save_best(best_path, evaluated, plain(config), val_data.wants, threshold, val)
        runs.add_metrics(folder / "metrics.jsonl", figures)
        state.save(folder / "checkpoints" / "last.pt")
    allow_stop()
    if progress.epoch < n_epochs:
        log(
            f"Early stopping: no better validation AUC in {settings.early_stopping_patience} epochs"
        )


def train_one_epoch(
    config: PUConfig,
    state: State,
    model: nn.Module,
    loader: DataLoader,
    sampler: PUBatchSampler,
    total_steps: int,
    folder: Path,
    device: torch.device,
) -> None:
    """Take the steps that are left of an epoch; adds up `reports.STEP_FIGURES` in state.totals."""
    loss_config, settings, progress = config.loss, config.training, state.progress
    assert state.priors is not None
    prior, unlabeled_prior = state.priors.prior, state.priors.unlabeled_prior
    data: Input = loader.dataset
    n_p, n_u = sampler.n_pos_per_process, sampler.n_unl_per_process
    ramp = min(1.0, (progress.epoch + 1) / max(1, loss_config.rampup_epochs))
    weight = loss_config.lambda_consistency * ramp
    generator = torch.Generator(device)
    first_bad = torch.full((), -1, device=device)  # first step with a number that is not finite
    weights = list(state.network.parameters())  # looked for once, not in every step
    model.train()
    started = time.monotonic()

    for batch in reports.progress_bar(loader, sampler, progress):
        step = progress.step
        if step >= total_steps:
            break
        if sampler.world_size == 1:  # else none may wait for another that has left already
            hold_stop()
        # Streams of their own for every step: nothing depends on what was drawn before
        torch.manual_seed(stream_seed(settings.seed, "dropout", step, sampler.rank))
        generator.manual_seed(stream_seed(settings.seed, "views", step, sampler.rank))
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(config, step, total_steps)

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
        if settings.ema_teacher and state.average is not None:
            with torch.no_grad(), autocast(settings.precision, device):
                z_t = state.average(weak[n_p:]).float().flatten()
                z_t = distributed.from_all(z_t)
                q = weak_probability(data.unlabeled(z_t, near))
        else:
            q = weak_probability(z_u)
        if loss_config.distribution_alignment:
            state.adaptive[2].lerp_(q.mean(), 0.001)
            q = align_distribution(q, state.adaptive[2], unlabeled_prior)
        threshold: float | Tensor = loss_config.consistency_threshold
        if loss_config.adaptive_threshold:
            threshold, state.adaptive[:2] = adaptive_threshold(q, state.adaptive[:2])
        consistency, mask = fixmatch_consistency(z_u, z_s, threshold, pseudo_probability=q)
        loss = objective + weight * consistency

        # Every process has the loss of the global batch; DDP averages gradients, so scale back up
        state.optimizer.zero_grad(set_to_none=True)
        (loss * sampler.world_size).backward()
        largest_norm = config.optimizer.grad_clip or math.inf
        norm = nn.utils.clip_grad_norm_(weights, largest_norm)
        state.optimizer.step()
        if state.average is not None:
            update_average(state.average, state.network, settings.ema_decay or 0.999, step)

        progress.step, progress.batch = step + 1, progress.batch + 1
        progress.train_seconds += (now := time.monotonic()) - started
        started = now
        state.totals += reports.step_figures(
            risk, weight * consistency, mask, q, clipped=r_minus < -loss_config.beta, z_u=z_u
        )
        finite = torch.isfinite(loss.detach() + norm)
        first_bad = torch.where((first_bad < 0) & ~finite, step, first_bad)
        if progress.step % CHECK_FINITE_EVERY == 0:
            require_finite(first_bad, sampler)
        if progress.step % settings.checkpoint_every_steps == 0:
            require_finite(first_bad, sampler)
            if sampler.rank == 0:
                state.save(folder / "checkpoints" / "last.pt")
        allow_stop()
    require_finite(first_bad, sampler)


def require_finite(first_bad: Tensor, sampler: PUBatchSampler) -> None:
    """Raise `UserError` when a loss or gradient was not finite; last.pt is from before."""
    step = int(first_bad)
    if step >= 0:
        epoch, batch = divmod(step, len(sampler))
        raise UserError(
            f"the loss or its gradient was not finite at step {step + 1} (epoch {epoch + 1}, batch "
            f"{batch + 1}): lower optimizer.lr or set training.precision=fp32; the checkpoints "
            "from before are kept"
        )


def length_of_run(config: PUConfig, steps_per_epoch: int) -> tuple[int, int]:
    """Return epochs and steps: training.epochs, cut short by training.max_steps."""
    total_steps = config.training.epochs * steps_per_epoch
    total_steps = min(total_steps, config.training.max_steps or total_steps)
    return math.ceil(total_steps / steps_per_epoch), total_steps


def learning_rate(config: PUConfig, step: int, total_steps: int) -> float:
    """Return the rate of a step: constant, or half a cosine from lr to 0."""
    if config.optimizer.scheduler == "constant":
        return config.optimizer.lr
    return config.optimizer.lr * 0.5 * (1 + math.cos(math.pi * step / total_steps))


def stale(progress: Progress, config: PUConfig) -> bool:
    """Return whether early stopping is due."""
    return progress.epoch - progress.best_epoch >= config.training.early_stopping_patience


def evaluate_checkpoint(args: argparse.Namespace, device: torch.device) -> None:
    """Evaluate a best_model.pt on one split of a store and write the figures to --output."""
    if not args.data_dir:
        raise UserError("--evaluate needs --data-dir: name the patch store")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    best = load_best(args.evaluate, device)
    config = config_from_dict(best["config"], str(args.evaluate), PUConfig)
    data = open_input(args.data_dir, args.split, config)
    network = checkpoints.restored(
        lambda: build_network(config), best["network"], args.evaluate, device
    )
    report = evaluate_split(network, data, best["threshold"], config.training, device)
    if distributed.place()[0] != 0:
        return
    write_json(
        args.output,
        {
            args.split: report,
            "threshold": best["threshold"],
            "epochs_run": best["epoch"],
            **best["priors"],
            "checkpoint": str(args.evaluate),
            "data_dir": str(args.data_dir),
            "versions": runs.environment()["versions"],
        },
    )
    reports.log_split(print, args.split, report)
    print(f"Wrote {args.output}")


if __name__ == "__main__":
    run_script(main)
