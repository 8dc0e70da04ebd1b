"""What benchmarks share: the command line, the project's scripts, tables, the machine, noise.

torch is imported where it is needed: some benchmarks measure the memory of processes without it.
"""

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from picking.errors import UserError
from picking.files import read_json, write_json
from picking.seeds import stream

ROOT = Path(__file__).resolve().parent.parent


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is a module's docstring as it stands."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def require_same_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Raise `UserError` when the folder's results are of other settings."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    if not path.exists():
        write_json(path, settings)
    there = read_json(path)
    differing = [f"{key} {there.get(key)}" for key in settings if there.get(key) != settings[key]]
    if differing:
        raise UserError(
            f"{folder} holds results with {', '.join(differing)}: give other settings a --name"
        )


def script(name: str, *arguments: object) -> float:
    """Run one of the project's scripts; return the CPU minutes it took."""
    return run(sys.executable, name, *arguments)


def run(*command: object) -> float:
    """Run a command in the project's folder, its output on stderr; return its CPU minutes."""
    before = os.times()
    status = subprocess.run([*map(str, command)], cwd=ROOT, stdout=sys.stderr).returncode
    if status:
        begin = " ".join(map(str, command[:3]))
        raise UserError(f"{begin} ... ended with status {status}: what it said stands above")
    after = os.times()
    used = after.children_user + after.children_system
    return (used - before.children_user - before.children_system) / 60


def overrides(*values: str) -> list[str]:
    """Return the flags that change these values, each section.key=value, of a configuration."""
    return [part for value in values for part in ("--set", value)]


def print_row(*cells: object) -> None:
    """Print a row of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_header(*columns: str) -> None:
    """Print the first two rows of a Markdown table."""
    print_row(*columns)
    print_row(*["---"] * len(columns))


def with_interval(value: float, interval: list[float] | None) -> str:
    """Return a metric with its interval, if it has one."""
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def machine() -> dict[str, object]:
    """Return what results depend on beside the settings."""
    import torch

    return {
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def print_conditions(conditions: dict[str, object]) -> None:
    """Print settings and machine as a line."""
    print(", ".join(f"{key} {value}" for key, value in conditions.items()) + "\n")


def synchronise(device: Any) -> None:
    """Wait for a torch.device if it is a GPU."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def anonymous_mib() -> float:
    """Return this process's anonymous memory: not pages of files, which the system may drop."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def noise(path: Path, n: int, side_px: int) -> np.memmap:
    """Return uint8 (n, side, side) of noise as a memory map, written unless it is there."""
    if not path.exists():
        store = np.lib.format.open_memmap(path, "w+", np.uint8, (n, side_px, side_px))
        rng = stream(42, "store")
        for row in store:
            row[:] = rng.integers(0, 256, row.shape, dtype=np.uint8)
        store.flush()
    return np.load(path, mmap_mode="r")
