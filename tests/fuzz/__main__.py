"""The long version: ``python -m tests.fuzz --cases 5000 --seed 0`` prints a table of outcomes."""

import argparse
import collections
import importlib
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

GROUPS = (
    "annotations",
    "picks",
    "images",
    "configs",
    "checkpoints",
    "stores",
    "runs",
    "scripts",
    "files",
)

WIDTHS = (8, 9, 9, 12, 14)  # of the columns of counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--cases", type=int, default=5000, help="over all targets, in the suite's proportions")
    add("--seed", type=int, default=0)
    add("--groups", nargs="+", choices=GROUPS, default=GROUPS)
    add("--target", help="only those whose name contains this")
    add("--show", type=int, default=1, help="tracebacks of each kind of exception")
    args = parser.parse_args()
    from . import oracle

    signal.signal(signal.SIGALRM, _hangs)
    targets = [
        (group, case, weight)
        for group in args.groups
        for case, weight in importlib.import_module(
            f".test_fuzz_{group}", __package__
        ).CASES.items()
        if not args.target or args.target in case.__name__
    ]
    total = sum(weight for _, _, weight in targets)
    counts = {}
    for group, case, weight in targets:
        counted = counts[group, case.__name__] = collections.Counter()
        seen = collections.Counter()

        def judge(result, counted=counted, seen=seen, name=f"{group}.{case.__name__}"):
            if isinstance(result, str):
                counted[result] += 1
                return
            counted["drop" if isinstance(result, oracle.SilentDropError) else "exception"] += 1
            frames = traceback.extract_tb(result.__traceback__)
            ours = [
                f"{Path(f.filename).name}:{f.lineno}" for f in frames if "site-pack" not in f[0]
            ]
            kind = f"{type(result).__name__} at {' < '.join(ours[:-4:-1])}"
            seen[kind] += 1
            if seen[kind] <= args.show:
                print(f"\n{name}: {kind}: {str(result)[:600]}", flush=True)
                if os.environ.get("FUZZ_TRACEBACK"):
                    traceback.print_exception(result)

        oracle.run_cases(case, max(1, round(args.cases * weight / total)), args.seed, judge)
        print(f"{group}.{case.__name__}: {dict(counted)}", flush=True)

    heads = ("cases", "success", "refused", "exceptions", "silent drops")
    print(f"\n{'target':<36}" + "".join(f"{n:>{w}}" for n, w in zip(heads, WIDTHS, strict=True)))
    everything = collections.Counter()
    for (group, name), counted in counts.items():
        everything += counted
        print(_row(f"{group}: {name}", counted))
    print(_row("all", everything))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB")
    sys.exit(bool(everything["exception"] + everything["drop"]))


def _row(name, counted):
    kinds = ("success", "refusal", "exception", "drop")
    columns = zip((counted.total(), *map(counted.get, kinds)), WIDTHS, strict=True)
    return f"{name:<36}" + "".join(f"{n or 0:>{width}}" for n, width in columns)


def _hangs(signum, frame):
    raise TimeoutError("the case hangs")


if __name__ == "__main__":
    main()
