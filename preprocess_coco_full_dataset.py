"""Turn annotated micrographs into a patch store for PU learning, a segmentation store, or both.

    python preprocess_coco_full_dataset.py \
        --data-root /data/CryoTransformer/train_val_test_data \
        --output-dir data/cryotransformer_full_pu \
        --patch-size 128 --hide-ratio 0.3 --neg-per-pos 1.0 --seed 42

    python preprocess_coco_full_dataset.py \
        --data-root /data/CryoTransformer/train_val_test_data \
        --tasks patches segmentation --seg-output-dir data/cryotransformer_preprocessed

    # what somebody picked by hand, and nothing known of the rest (picking/preprocessing/windows.py)
    python preprocess_coco_full_dataset.py --micrographs 'raw/*.mrc' --labels picks.star \
        --unlabeled windows --diameter 150A --pixel-size 1.77 --output-dir data/few_labels

The data root holds train/, val/ and test/ with micrographs, and annotations/instances_<split>.json
or particle_coordinates/<stem>.csv. The same command continues a run that was interrupted, and
leaves a finished store alone. --dry-run shows the plan, its counts and the bytes it needs.
"""

import argparse
import contextlib
from pathlib import Path
from typing import Any

from picking import files
from picking.errors import UserError, run_script
from picking.formats import annotations, paths
from picking.formats.picks import inside
from picking.preprocessing import counts, cutting, image_sizes, plan, windows
from picking.preprocessing.arguments import add_pick_arguments, require_one_source
from picking.preprocessing.metadata import (
    arguments_of,
    begun_from_arguments,
    describe,
    window_settings,
)
from picking.preprocessing.montage import write_mask_montage, write_montage
from picking.preprocessing.negatives import RULES
from picking.stores import masks, patches, shards
from picking.stores.journal import require_same
from picking.stores.writer import fill_split

TASKS = {"patches": "--output-dir", "segmentation": "--seg-output-dir"}
Plans = dict[str, dict[str, list[Any]]]  # task -> split -> a plan for each micrograph


def parse_args() -> argparse.Namespace:
    """Return the checked command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data-root", type=Path, help="the data set's top folder")
    add("--tasks", nargs="+", choices=TASKS, default=["patches"], help="default: patches")
    add("--output-dir", type=Path, default=Path("data/cryotransformer_full_pu"), help="of patches")
    add(
        "--patch-size",
        type=int,
        help="side of a patch in px of the micrograph, default 128; of a window in px after "
        f"scaling, default {windows.WINDOW_PX}",
    )
    add("--hide-ratio", type=float, default=0.3, help="share of positives hidden among unlabeled")
    add("--neg-per-pos", type=float, default=1.0, help="negatives wanted per particle")
    add("--seed", type=int, default=42)
    add("--splits", nargs="+", choices=annotations.SPLITS, help="default: those that are there")
    for split in annotations.SPLITS:
        add(f"--max-images-{split}", type=int, metavar="N", help="only N images, drawn at random")
    add("--num-workers", type=int, default=4, help="processes; the result does not depend on it")
    add(
        "--neg-rule",
        choices=RULES,
        default="far",
        help="far: max(patch, 1.5 mean diameters) from every particle; disjoint: the patch meets "
        "no particle",
    )
    add(
        "--annotated-margin",
        default="auto",
        metavar="PX|auto",
        help="draw no negative this near to an edge, where annotators list no particle; auto: the "
        "largest margin that no centre of the data set enters",
    )
    add("--top-up", action="store_true", help="micrographs with room make up for those without")
    add(
        "--hard-negatives",
        type=float,
        nargs="?",
        const=0.25,
        default=0.0,
        metavar="SHARE",
        help="in train, this share of the negatives is just off a particle or looks unusual "
        "(ice, carbon edge); 0.25 when no share is given",
    )
    add("--seg-output-dir", type=Path, default=Path("data/cryotransformer_preprocessed"))
    add("--seg-size", type=int, default=768, help="side of an image for segmentation, in px")
    add(
        "--resize",
        choices=masks.RESIZES,
        default="stretch",
        help="stretch: each axis fills the square; pad: one scale for both, the rest is ignored",
    )
    add(
        "--seg-tiles",
        type=int,
        default=1,
        metavar="N",
        help="cut each micrograph into N x N images of --seg-size; 1: the whole is one image",
    )
    add(
        "--seg-disk",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="diameter of the disks in masks, in diameters of the particle; 0.6 keeps particles "
        "that touch apart, which helps picking",
    )
    add(
        "--seg-ignore-margin",
        action="store_true",
        help="masks ignore what lies within the annotated margin, where particles are not listed",
    )
    add_pick_arguments(parser)
    add("--skip-unreadable", action="store_true", help="leave out images that cannot be decoded")
    add("--dry-run", action="store_true", help="plan only: nothing is decoded or written")
    add(
        "--shard",
        type=shards.read_shard,
        metavar="I/N",
        help="do every N-th micrograph from the I-th on, as one of N processes on machines that "
        "share the folders; when all are done, the same command without --shard finishes the "
        "stores (and cuts a split anew, alone, when it leaves out one of its images)",
    )
    args = parser.parse_args()
    require_one_source(args, parser)
    if args.patch_size is None:
        args.patch_size = windows.WINDOW_PX if args.micrographs else 128
    args.tasks = [task for task in TASKS if task in args.tasks]
    folders = {"patches": args.output_dir, "segmentation": args.seg_output_dir}
    args.folders = {task: folders[task] for task in args.tasks}

    limits = [getattr(args, f"max_images_{split}") for split in annotations.SPLITS]
    for valid, message in (
        (args.patch_size >= 8, f"--patch-size is {args.patch_size}: choose 8 px or more"),
        (0 <= args.hide_ratio < 1, f"--hide-ratio is {args.hide_ratio}: choose 0 to below 1"),
        (0 <= args.neg_per_pos <= 100, f"--neg-per-pos is {args.neg_per_pos}: choose 0 to 100"),
        (0 <= args.hard_negatives <= 1, f"--hard-negatives is {args.hard_negatives}: choose 0-1"),
        (args.seg_size >= 16, f"--seg-size is {args.seg_size}: choose 16 px or more"),
        (0.1 <= args.seg_disk <= 1, f"--seg-disk is {args.seg_disk}: choose 0.1 to 1"),
        (args.seg_tiles >= 1, f"--seg-tiles is {args.seg_tiles}: choose 1 or more"),
        (
            args.windows_per_micrograph >= 1,
            f"--windows-per-micrograph is {args.windows_per_micrograph}: choose 1 or more",
        ),
        (args.num_workers >= 0, f"--num-workers is {args.num_workers}: choose 0 or more"),
        (
            all(n is None or n > 0 for n in limits),
            "--max-images-... must be 1 or more; leave a split out with --splits",
        ),
        (
            args.annotated_margin == "auto" or args.annotated_margin.isdecimal(),
            f"--annotated-margin is '{args.annotated_margin}': give whole px or 'auto'",
        ),
    ):
        if not valid:
            raise UserError(message)
    return args


def main() -> None:
    """Read the annotations, plan, check the disk, fill the stores, write pictures and metadata."""
    args = parse_args()
    folders = args.folders

    # 1. Annotations
    if args.micrographs:
        args.diameter_px = paths.diameter_in_px(args.diameter, args.pixel_size)
        listed = windows.read_splits(
            args.micrographs, args.val_micrographs, args.labels, args.frame, args.diameter_px,
            args.seed, args.skip_unreadable,
        )  # fmt: skip
    else:
        splits = annotations.find_splits(args.data_root, args.splits)
        listed = {name: annotations.read_split(args.data_root, name) for name in splits}
    splits = list(listed)
    require_own_folders(args, listed)
    made_from = {task: arguments_of(args, task, listed) for task in args.tasks}
    if args.dry_run:
        make_plans(args, args.tasks, listed, skipped={name: [] for name in splits})
        return
    tasks = [task for task in args.tasks if not is_finished(folders[task], made_from[task])]

    with contextlib.ExitStack() as stack:
        journals = {}
        for task in tasks:
            stack.enter_context(files.locked(folders[task], args.shard))
        # One that held the folder until now may have finished the store
        tasks = [task for task in tasks if not is_finished(folders[task], made_from[task])]
        for task in tasks:
            files.remove_half_written(folders[task], *(folders[task] / name for name in splits))
            begun_from = begun_from_arguments(args, task, made_from[task])
            journals[task] = shards.open_journal(folders[task], begun_from, args.shard)
        skipped: dict[str, list[str]] = {name: [] for name in splits}
        if args.skip_unreadable:
            for name in splits:
                known = [image for task in tasks for image in journals[task].skipped[name]]
                skipped[name] = list(dict.fromkeys(known))
        while tasks:
            # 2. Plan
            plans, margin_px = make_plans(args, tasks, listed, skipped)
            require_room(args, plans)

            # 3. Fill, and once more as if the images that cannot be decoded were not there
            problems = {}
            for name in splits:
                fillings = []
                for task in tasks:
                    into, planned = folders[task] / name, plans[task][name]
                    filling = cutting.filling if task == "patches" else masks.filling
                    fillings.append(filling(into, planned, journals[task]))
                # By the tasks asked for, not those left, so that an interrupted run ends the same
                reduced = "patches" not in args.tasks
                problems[name] = fill_split(fillings, args.num_workers, reduced, args.shard)
            unreadable = [message for found in problems.values() for message in found.values()]
            if unreadable and not args.skip_unreadable:
                raise image_sizes.unreadable_error(
                    unreadable, sum(map(len, plans[tasks[0]].values()))
                )
            if args.shard:
                shards.print_done(args.shard, unreadable)
                return
            if not unreadable:
                break
            for name in splits:
                if problems[name]:
                    skipped[name] += problems[name]
                    for task in tasks:
                        journals[task].skip(name, list(problems[name]))

        # 4. Pictures, then metadata: a store is finished when its metadata.json is there
        for task in tasks:
            for name in splits:
                picture = folders[task] / f"montage_{name}.png"
                if task == "patches":
                    write_montage(folders[task] / name, plans[task][name], picture)
                else:
                    counts.print_shares(name, plans[task][name], journals[task].done)
                    write_mask_montage(folders[task] / name, picture)
                print(f"Wrote {picture}: look at it, a wrong frame or scale shows at a glance")
            metadata = {
                "made_from": made_from[task],
                "annotated_margin_px": margin_px,
                **describe(args, task, plans[task], listed, skipped, journals[task]),
            }
            files.write_json(folders[task] / "metadata.json", metadata)
            journals[task].remove()
            shards.remove_journals(folders[task])
            n_rows = sum(plan.n_rows for planned in plans[task].values() for plan in planned)
            what = "patches" if task == "patches" else "images with masks"
            print(f"Finished {folders[task]}: {n_rows:,} {what}")


def require_own_folders(args: argparse.Namespace, listed: dict[str, annotations.Split]) -> None:
    """Raise `UserError` when a store would lie among the micrographs or where the other does."""
    inputs_lie_in = {
        m.path.parent.resolve() for split in listed.values() for m in split.micrographs
    }
    if args.data_root:
        inputs_lie_in |= {(args.data_root / name).resolve() for name in annotations.SPLITS}
    outputs = [folder.resolve() for folder in args.folders.values()]
    for output, task in zip(outputs, args.folders, strict=True):
        within = args.data_root and any(folder in output.parents for folder in inputs_lie_in)
        top = args.data_root and output == args.data_root.resolve()
        if within or top or output in inputs_lie_in:
            where = f"{TASKS[task]} {args.folders[task]}"
            raise UserError(f"{where} is among the micrographs: choose another")
    if len(set(outputs)) < len(outputs):
        raise UserError(
            f"--output-dir and --seg-output-dir are both {args.output_dir}: give each store its own"
        )


def is_finished(folder: Path, made_from: dict) -> bool:
    """Return whether the store is complete; raises `UserError` when it is made from else."""
    if not (folder / "metadata.json").is_file():
        return False
    require_same(folder, patches.read_metadata(folder).get("made_from", {}), made_from)
    shards.remove_journals(folder)  # of a process that was killed before it removed them
    print(f"{folder} is complete already: nothing to do")
    return True


def make_plans(
    args: argparse.Namespace,
    tasks: list[str],
    listed: dict[str, annotations.Split],
    skipped: dict[str, list[str]],
) -> tuple[Plans, int]:
    """Plan every split without the images in ``skipped``, and print the counts.

    Returns the plans and the annotated margin in px. Adds unreadable images to ``skipped``.
    """
    records, sizes = {}, {}
    for name, split in listed.items():
        limit = getattr(args, f"max_images_{name}")
        records[name], sizes[name] = image_sizes.read_headers(
            split, limit, skipped[name], args.skip_unreadable, args.seed, args.num_workers
        )
    for name in listed:
        found = zip(records[name], sizes[name], strict=True)
        if not any(inside(record, size).any() for record, size in found):
            raise UserError(
                f"split '{name}' yields no {'patch' if 'patches' in tasks else 'mask'}: no "
                "particle's centre lies in a readable image; check its annotation or leave it out "
                "with --splits"
            )
    plans: Plans = {task: {} for task in tasks}
    if args.micrographs:
        settings = window_settings(args)
        for name, split in listed.items():
            plans["patches"][name] = windows.plan_windows(
                name, records[name], sizes[name], settings
            )
            counts.print_windows(split, plans["patches"][name], skipped[name], settings)
        print_store(args, plans)
        return plans, 0
    margin_px = image_sizes.largest_margin(records, sizes)
    if args.annotated_margin != "auto":
        margin_px = int(args.annotated_margin)
    if "patches" in tasks:
        settings = plan.PlanSettings(
            patch_size_px=args.patch_size,
            hide_ratio=args.hide_ratio,
            neg_per_pos=args.neg_per_pos,
            seed=args.seed,
            neg_rule=args.neg_rule,
            margin_px=margin_px,
            top_up=args.top_up,
            hard_share=args.hard_negatives,
        )
        for name in listed:
            plans["patches"][name] = plan.plan_split(
                name, records[name], sizes[name], settings, args.num_workers
            )
        for name, split in listed.items():
            counts.print_patches(split, plans["patches"][name], skipped[name], settings)
    if "segmentation" in tasks:
        ignored_px = margin_px if args.seg_ignore_margin else 0
        drawn = masks.MaskSettings(
            args.seg_size, args.resize, args.seg_tiles, ignored_px, args.seg_disk
        )
        for name, split in listed.items():
            plans["segmentation"][name] = masks.plan_images(records[name], sizes[name], drawn)
            counts.print_images(split, plans["segmentation"][name], skipped[name])
    print(f"\nAnnotated margin: {margin_px} px ({args.annotated_margin})")
    print_store(args, plans)
    return plans, margin_px


def print_store(args: argparse.Namespace, plans: Plans) -> None:
    """Print how large the stores will be."""
    for task in plans:
        n_bytes = store_bytes(args, task, plans[task])
        print(f"Store: {n_bytes / 1e9:.2f} GB in {args.folders[task]}", flush=True)


def store_bytes(args: argparse.Namespace, task: str, plans: dict[str, list[Any]]) -> int:
    """Return the bytes that the rows of all splits take."""
    n_rows = sum(plan.n_rows for split_plans in plans.values() for plan in split_plans)
    return n_rows * (args.patch_size**2 if task == "patches" else 2 * args.seg_size**2)


def require_room(args: argparse.Namespace, plans: Plans) -> None:
    """Raise `UserError` when a disk lacks the room for all stores on it."""
    needed: dict[int, int] = {}
    for task in plans:
        folder = args.folders[task]
        present = [path for name in plans[task] for path in (folder / name).glob("*.npy")]
        n_bytes = store_bytes(args, task, plans[task]) - sum(f.stat().st_size for f in present)
        disk = folder.stat().st_dev
        needed[disk] = needed.get(disk, 0) + n_bytes
        files.require_room(folder, needed[disk])


if __name__ == "__main__":
    run_script(main)
