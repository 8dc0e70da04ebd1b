"""CPU or GPU: which one a process computes on."""

import os

import torch

from picking.errors import UserError


def select_device(name: str) -> torch.device:
    """Return the device called ``name``: cpu, cuda, cuda:N, or auto for the best there is.

    Raises `UserError` listing the devices that are there; never falls back to another one. Under
    torchrun, cuda and auto mean the GPU of this process, and no two share one.
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    n_processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if name.startswith("cuda:") and n_processes > 1:
        raise UserError(f"--device {name} is one GPU for {n_processes} processes: give cuda")
    if name == "auto":
        name = "cuda" if n_gpus else "cpu"
    if name == "cuda" and n_gpus:
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    there = [*(f"cuda:{i}" for i in range(n_gpus)), "cpu"]
    if name not in there:
        raise UserError(f"--device {name} is not there; there are: {', '.join(there)}, auto")
    if name.startswith("cuda"):
        torch.cuda.set_device(name)
    return torch.device(name)


def use_deterministic_kernels() -> None:
    """Have GPU kernels add in one order; call before the GPU is used. CPU kernels do anyway.

    Torch raises where a kernel has no such order; of those in use here all have one.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
