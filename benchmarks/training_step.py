"""What a training step costs beside the bare network, and how near the machine's limits it comes.

    OMP_NUM_THREADS=1 python -m benchmarks.training_step --device cpu
    python -m benchmarks.training_step --device cuda:0 --scale full --networks resnet18 \
        --batch-sizes 64 512 4096
    python -m benchmarks.training_step --device cuda:0 --scale full --networks attention_unet unet

script/s: images a second of the scripts' own `train_one_epoch`, with loader, sampler, views, loss
and optimiser, on a store of noise. bare/s: of the network alone, forward, backward and optimiser
step on random numbers already in memory, as many views a step, in the same precision and layout.
`ratio` is one to the other; on a CPU `CPU ratio` too, of the process's own seconds, which other
work disturbs less (workers have theirs for themselves). `waits` is the fraction of the script's
time in next(loader). The script in each of `WAYS` is also compared with the bare network in plain
eager fp32 (x fp32, x tf32). Ways take turns; numbers are medians over turns, ratios are made within
one. CUDA graphs keep their memory: leave `graphs` out (--ways) where batches are large.

FLOPs are counted (torch.utils.flop_counter) and given as a fraction of what a large matmul reaches
in the same precision. Intensity is FLOPs per byte that the operations of forward and backward read
and write, each by itself as in eager mode; below the ridge, the rate of matmul over that of
copying, memory is the limit.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import (
    ROOT,
    machine,
    new_parser,
    noise,
    print_conditions,
    print_header,
    print_row,
    synchronise,
)
from picking.active_learning import train as active_training
from picking.active_learning.iterations import STEP_METRICS as ACTIVE_METRICS
from picking.config import ActiveConfig, PUConfig, read_config
from picking.errors import run_script
from picking.parallel import batch_loader, keep_freed_memory
from picking.pu_learning import train as pu_training
from picking.pu_learning.inputs import Patches
from picking.pu_learning.priors import Priors
from picking.pu_learning.samplers import PUBatchSampler, split_batch
from picking.pu_learning.state import State
from picking.pu_learning.train import STEP_METRICS
from picking.runs.devices import select_device
from picking.seeds import stream
from picking.stores.patches import PatchStore
from picking.stores.segmentation import CryoEMSegmentationDataset
from picking.training import loop
from picking.training.networks import build_network, new_network
from picking.training.scoring import autocast

NETWORKS = ("resnet18", "attention_unet", "unet")
ENDLESS = 10**6  # steps of a run, so that the learning rate hardly falls
QUICK = {"resnet18": "pu_real_quick.yaml", "unet": "active_learning_real_quick.yaml"}
FULL = {"resnet18": "pu_full_fixed.yaml", "unet": "active_learning.yaml"}
# Configs and what is changed in them; sides of stored patches and images in px, and of a matrix
SCALES: dict[str, dict[str, Any]] = {
    "tiny": {
        "configs": QUICK, "patch_px": 32, "image_px": 16, "matmul": 64,
        "resnet18": ["data.input_size_px=32", "training.batch_size=5"],
        "unet": ["model.width=2", "model.depth=2", "training.batch_size=2"],
    },
    "quick": {"configs": QUICK, "patch_px": 128, "image_px": 128, "matmul": 1024},
    "full": {"configs": FULL, "patch_px": 128, "image_px": 768, "matmul": 8192},
}  # fmt: skip
PLAIN = {"precision": "fp32", "channels_last": False, "compile": False}
# How a network is run: what is changed in the config's section `training`
WAYS: dict[str, dict[str, Any]] = {
    "fp32": PLAIN,  # TF32 off
    "tf32": PLAIN,  # TF32 on
    "bf16": {**PLAIN, "precision": "bf16"},
    "default": {},  # bf16 where a GPU has it, channels last; TF32 as in torch, for convolutions
    "compile": {"compile": True},
    "graphs": {"compile": True},  # with CUDA graphs: torch.compile's mode reduce-overhead
}
COLUMNS = {
    "network": "", "way": "", "batch": "d", "script/s": ",.1f", "bare/s": ",.1f", "ratio": ".3f",
    "lowest": ".3f", "highest": ".3f", "CPU ratio": ".3f", "waits": ".2%", "x fp32": ".2f",
    "x tf32": ".2f", "TFLOP/s": ".3f", "of matmul": ".0%", "intensity": ".1f", "ridge": ".1f",
    "peak GiB": ".2f",
}  # fmt: skip


# A network, the shape of its input, the script's ``epoch(model, loader)`` of it, and the loader
Loop = tuple[nn.Module, tuple[int, ...], Callable[[nn.Module, Any], None], DataLoader]


class Timed:
    """A loader that adds up the seconds in which its batches were waited for."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.dataset, self.seconds = loader, loader.dataset, 0.0

    def __iter__(self) -> Iterator:
        started = time.perf_counter()
        for batch in self.loader:
            self.seconds += time.perf_counter() - started
            yield batch
            started = time.perf_counter()
        self.seconds += time.perf_counter() - started


class Traffic(TorchDispatchMode):
    """Adds up the bytes of what operations read and write; views move nothing."""

    n_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = (x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor))
            self.n_bytes += sum(x.numel() * x.element_size() for x in tensors)
        return result


def main() -> None:
    args = parse_args()
    device = args.device = select_device(args.device)
    args.ways = args.ways or (list(WAYS) if device.type == "cuda" else ["default"])
    if device.type == "cpu":
        keep_freed_memory()
    setting = {
        **{key: value for key, value in vars(args).items() if key != "json"},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        **machine(),
    }
    print_conditions(setting)
    print_header(*COLUMNS)
    rows: list[dict] = []
    for name in args.networks:
        for batch_size in args.batch_sizes:
            with tempfile.TemporaryDirectory() as folder:
                measured = measure(args, name, batch_size, Path(folder))
            torch._dynamo.reset()
            for row in measured:
                print_row(
                    *(format(row[k], spec) if k in row else "" for k, spec in COLUMNS.items())
                )
            rows += measured
    if args.json:
        report = {"conditions": setting, "rows": rows}
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--device", default="auto")
    add("--scale", choices=SCALES, default="quick")
    add("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    add("--ways", nargs="+", choices=WAYS, help="default: all on a GPU, `default` on a CPU")
    add("--batch-sizes", nargs="+", type=int, default=[None], help="default: the config's")
    add("--steps", type=int, default=10, help="of each way in each turn")
    add("--turns", type=int, default=15)
    add("--num-workers", type=int, default=0)
    add("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    if args.steps < 1 or args.turns < 1:
        parser.error("--steps and --turns from 1")
    return args


def measure(
    args: argparse.Namespace, name: str, batch_size: int | None, folder: Path
) -> list[dict]:
    """Return a row of the table for every way to run a network; the ways take turns."""
    rows: dict[str, dict] = {}
    runs: dict[str, Callable[[], dict]] = {}
    for way in args.ways:
        try:
            rows[way], runs[way] = prepare(args, name, way, batch_size, folder)
        except torch.cuda.OutOfMemoryError:
            print(f"{name}, {way}, batch {batch_size}: more than the GPU's memory")
    turns: dict[str, list[dict]] = {way: [] for way in runs}
    for _ in range(args.turns):
        for way, run in runs.items():
            turns[way].append(run())
    for way, row in rows.items():
        row |= rates(row, turns, way, args.steps)
    return list(rows.values())


def rates(row: dict, turns: dict[str, list[dict]], way: str, n_steps: int) -> dict:
    """Return what follows from the seconds of all turns."""
    mine = turns[way]

    def median_ratio(one: str, other: str, of: str = way) -> float:
        pairs = zip(turns[of], mine, strict=True)
        return statistics.median(theirs[one] / ours[other] for theirs, ours in pairs)

    script_s, bare_s = (statistics.median(turn[key] for turn in mine) for key in ("script", "bare"))
    ratios = [turn["bare"] / turn["script"] for turn in mine]
    flops_per_second = row["flops"] * n_steps / script_s
    return {
        "script/s": row["batch"] * n_steps / script_s,
        "bare/s": row["batch"] * n_steps / bare_s,
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "waits": median_ratio("waited", "script"),
        "TFLOP/s": flops_per_second / 1e12,
        "of matmul": flops_per_second / row["matmul"],
        **({"CPU ratio": median_ratio("bare CPU", "script CPU")} if "bare CPU" in mine[0] else {}),
        **{f"x {w}": median_ratio("bare", "script", w) for w in ("fp32", "tf32") if w in turns},
    }


def prepare(
    args: argparse.Namespace, name: str, way: str, batch_size: int | None, folder: Path
) -> tuple[dict, Callable[[], dict]]:
    """Build a network and warm it up; return its row so far, and what measures a turn's seconds."""
    device, on_gpu = args.device, args.device.type == "cuda"
    before = 0
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    set_tf32(way)
    config = read(args.scale, name, way, batch_size)
    build = pu_loop if name == "resnet18" else active_loop
    network, input_shape, epoch, loader = build(config, args, folder)
    settings, bare = config.training, copy.deepcopy(network)
    model, bare_model = network, bare
    if settings.compile:
        mode = "reduce-overhead" if way == "graphs" else "default"
        model, bare_model = (torch.compile(one, mode=mode) for one in (model, bare))
    epoch(model, loader)
    peak = torch.cuda.max_memory_allocated(device) - before if on_gpu else 0

    optimizer = loop.new_optimizer(bare, config.optimizer)
    x = torch.randn(input_shape, device=device)
    with torch.no_grad(), autocast(settings.precision, device):
        gradient = torch.randn_like(bare(x)) / len(x)

    def bare_epoch() -> None:
        for _ in range(args.steps):
            with autocast(settings.precision, device):
                z = bare_model(x)
            optimizer.zero_grad(set_to_none=True)
            z.backward(gradient)
            optimizer.step()

    def turn() -> dict:
        set_tf32(way)
        timed = Timed(loader)
        bare_s, bare_cpu_s = seconds(bare_epoch, device)
        script_s, script_cpu_s = seconds(lambda: epoch(model, timed), device)
        taken = {"bare": bare_s, "script": script_s, "waited": timed.seconds}
        return taken if on_gpu else {**taken, "bare CPU": bare_cpu_s, "script CPU": script_cpu_s}

    turn()
    matmul, copying = machine_limits(SCALES[args.scale]["matmul"], gradient.dtype, device)
    flops, n_bytes = cost(bare, input_shape, gradient.dtype)
    row = {
        "network": name,
        "way": way,
        "batch": settings.batch_size,
        "flops": flops,
        "matmul": matmul,
        "intensity": flops / n_bytes,
        "ridge": matmul / copying,
    }
    return row | ({"peak GiB": peak / 2**30} if on_gpu else {}), turn


def read(scale: str, name: str, way: str, batch_size: int | None) -> Any:
    """Return the config of a scale's network, changed as the way asks for."""
    schema, kind = (PUConfig, "resnet18") if name == "resnet18" else (ActiveConfig, "unet")
    changes = WAYS[way] | ({"batch_size": batch_size} if batch_size else {})
    overrides = [f"training.{key}={json.dumps(value)}" for key, value in changes.items()]
    overrides += [f"model.name={name}"] if kind == "unet" else []
    overrides = [*SCALES[scale].get(kind, ()), *overrides]
    return read_config(ROOT / "configs" / SCALES[scale]["configs"][kind], overrides, schema)


def set_tf32(way: str) -> None:
    torch.set_float32_matmul_precision("high" if way == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = way != "fp32"


def seconds(function: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Return how long a call takes, the GPU's work included, and the process's CPU seconds."""
    synchronise(device)
    started, cpu_started = time.perf_counter(), time.process_time()
    function()
    synchronise(device)
    return time.perf_counter() - started, time.process_time() - cpu_started


def machine_limits(side: int, dtype: torch.dtype, device: torch.device) -> tuple[float, float]:
    """Return FLOP/s of a large matmul and bytes/s, read and written, of a large copy."""
    a = torch.randn(side, side, device=device).to(dtype)
    source = torch.ones(64 * side**2, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    matmul_s = min(seconds(lambda: torch.mm(a, a), device)[0] for _ in range(20))
    copy_s = min(seconds(lambda: target.copy_(source), device)[0] for _ in range(20))
    return 2 * side**3 / matmul_s, 2 * source.nbytes / copy_s


def cost(network: nn.Module, input_shape: tuple[int, ...], dtype: torch.dtype) -> tuple[int, int]:
    """Return FLOPs and bytes moved of a forward and a backward pass."""
    twin = copy.deepcopy(network).to("meta", dtype)  # shapes alone: nothing is computed
    x = torch.empty(input_shape, dtype=dtype, device="meta")
    counter, traffic = FlopCounterMode(display=False), Traffic()
    with counter, traffic:
        z = twin(x)
        z.backward(torch.empty_like(z))
    return counter.get_total_flops(), traffic.n_bytes


def pu_loop(config: PUConfig, args: argparse.Namespace, folder: Path) -> Loop:
    """Return the loop of train_pu_fixed_full.py on a patch store of noise."""
    device, settings, ratio = args.device, config.training, config.data.batch_ratio
    n_p, n_u = split_batch(settings.batch_size, ratio)
    n = n_p + args.steps * n_u  # an epoch is a pass over the unlabeled
    patches = noise(folder / "patches.npy", n, SCALES[args.scale]["patch_px"])
    sampler = PUBatchSampler(np.arange(n) < n_p, settings.batch_size, ratio, settings.seed)
    network = build_network(config).to(device)
    now = State(
        network=network,
        average=None,
        optimizer=loop.new_optimizer(network, config.optimizer),
        totals=torch.zeros(len(STEP_METRICS), dtype=torch.float64, device=device),
        adaptive=torch.full((3,), 0.5, device=device),
    )
    now.priors = Priors(0.5, "config", 0.5, "config")

    last = folder / "last.pt"

    def epoch(model: nn.Module, loader: Any) -> None:
        sampler.set_epoch(now.progress.epoch)
        pu_training.train_one_epoch(config, now, model, loader, sampler, ENDLESS, last, 1.0)
        loop.end_epoch(now)

    side_px = config.data.input_size_px
    data = Patches(cast(PatchStore, patches), side_px, config.augmentation)
    loader = batch_loader(data, sampler, args.num_workers, device)
    return network, (n_p + 2 * n_u, 1, side_px, side_px), epoch, loader


def active_loop(config: ActiveConfig, args: argparse.Namespace, folder: Path) -> Loop:
    """Return the loop of train_active_learning_fixed.py on images of noise."""
    device, size, side_px = args.device, config.training.batch_size, SCALES[args.scale]["image_px"]
    network = new_network(config, "init", 0).to(device)
    n = args.steps * size
    images = noise(folder / "images.npy", n, side_px)
    masks = noise(folder / "masks.npy", n, side_px)  # most of it counts as background
    state = loop.State(
        network=network,
        optimizer=loop.new_optimizer(network, config.optimizer),
        totals=torch.zeros(len(ACTIVE_METRICS), dtype=torch.float64, device=device),
    )
    batches: list[np.ndarray] = []

    def epoch(model: nn.Module, loader: Any) -> None:
        order = stream(config.training.seed, "order", state.progress.epoch).permutation(n)
        batches[:] = order.reshape(args.steps, size)
        active_training.train_one_epoch(config, state, model, loader, args.steps)
        loop.end_epoch(state)

    dataset = CryoEMSegmentationDataset(images, masks, is_training=True)
    loader = batch_loader(dataset, batches, args.num_workers, device)
    return network, (size, 1, side_px, side_px), epoch, loader


if __name__ == "__main__":
    run_script(main)
