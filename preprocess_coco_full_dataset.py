r"""Turn annotated micrographs into a patch store for PU learning, a segmentation store, or both.

    python preprocess_coco_full_dataset.py \
        --data-root /data/CryoTransformer/train_val_test_data \
        --output-dir data/cryotransformer_full_pu \
        --patch-size 128 --hide-ratio 0.3 --neg-per-pos 1.0 --seed 42

    python preprocess_coco_full_dataset.py \
        --data-root /data/CryoTransformer/train_val_test_data \
        --tasks patches segmentation --seg-output-dir data/cryotransformer_preprocessed

    # what somebody picked by hand, and nothing known of the rest (picking/preprocessing/windows/)
    python preprocess_coco_full_dataset.py --micrographs 'raw/*.mrc' --labels picks.star \
        --diameter 150A --pixel-size 1.77 --output-dir data/few_labels
    # ... and what is no particle, what is junk, and which micrographs are picked completely
    python preprocess_coco_full_dataset.py ... --not-particles false_picks.star --junk masks/ \
        --complete complete.txt
    # all of that from the folder of the labelling page (picking/inputs/labels_folder.py)
    python preprocess_coco_full_dataset.py --labels data/labels --output-dir data/few_labels

The data root holds train/, val/ and test/ with micrographs, and annotations/instances_<split>.json
or particle_coordinates/<stem>.csv. The same command continues a run that was interrupted, and
leaves a finished store alone. --dry-run shows the plan, its counts and the bytes it needs.
"""

import argparse
import contextlib
import dataclasses
from pathlib import Path

from picking import files
from picking.errors import ALLOW_PARTIAL, UserError, run_script
from picking.formats.coco import CATEGORY, require_one_category
from picking.inputs import annotations
from picking.inputs.diameters import asked_diameters, find_pixel_sizes, require_boxes_fit
from picking.inputs.micrograph_lists import given_micrographs
from picking.inputs.placement import check_splits
from picking.micrographs.problems import warn_of_notes
from picking.preprocessing import arguments
from picking.preprocessing.cutting import patch_writer
from picking.preprocessing.few_picks import read_splits
from picking.preprocessing.image_sizes import distances_to_edge, read_headers, unreadable_error
from picking.preprocessing.metadata import (
    Plans,
    Settings,
    begun_from,
    count_splits,
    is_finished,
    made_from,
    print_fractions,
    print_plans,
    total,
)
from picking.preprocessing.montage import write_mask_montage, write_montage
from picking.preprocessing.windows.priors import expected_particles
from picking.stores.journal import Journal
from picking.stores.masks import mask_writer
from picking.stores.writer import write_split

TASKS = {"patches": "--output-dir", "segmentation": "--seg-output-dir"}
WRITERS = {"patches": patch_writer, "segmentation": mask_writer}
Splits = dict[str, annotations.Split]


def parse_args() -> argparse.Namespace:
    """Return the checked command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data-root", type=Path, help="the data set's top folder")
    add("--tasks", nargs="+", choices=TASKS, default=["patches"], help="default: patches")
    patches, masks = Path("data/cryotransformer_full_pu"), Path("data/cryotransformer_preprocessed")
    add("--output-dir", type=Path, default=patches, help=f"of patches, windows; default: {patches}")
    add("--seg-output-dir", type=Path, default=masks, help=f"of masks; default: {masks}")
    add("--seed", type=int, default=42, help="of everything random; default: 42")
    add("--splits", nargs="+", choices=annotations.SPLITS, help="default: those that are there")
    for split in annotations.SPLITS:
        add(f"--max-images-{split}", type=int, metavar="N", help="only N images, drawn at random")
    add("--num-workers", type=int, default=4, help="processes; the result does not depend on it")
    add("--skip-unreadable", action="store_true", help="leave out images that cannot be decoded")
    add("--allow-partial", action="store_true", help=ALLOW_PARTIAL)
    add("--category", metavar="NAME", help=CATEGORY)
    add("--dry-run", action="store_true", help="plan only: nothing is decoded or written")
    arguments.add_patch_arguments(parser)
    arguments.add_mask_arguments(parser)
    arguments.add_pick_arguments(parser)
    args = parser.parse_args()
    args.tasks = [task for task in TASKS if task in args.tasks]
    arguments.complete(args, parser)
    folders = {"patches": args.output_dir, "segmentation": args.seg_output_dir}
    args.folders = {task: folders[task] for task in args.tasks}
    return args


def main() -> None:
    """Read the annotations, plan, check the disk, write the stores, pictures and metadata."""
    args = parse_args()
    folders = args.folders

    # 1. Annotations, and what of the stores is left to do
    listed = read_annotations(args)
    require_own_folders(args, listed)
    skipped: dict[str, list[str]] = {name: [] for name in listed}
    if args.dry_run:
        make_plans(args, args.tasks, listed, skipped)
        return
    made = {task: made_from_arguments(args, task, listed) for task in args.tasks}
    tasks = [task for task in args.tasks if not is_finished(folders[task], made[task])]

    with contextlib.ExitStack() as stack:
        for task in tasks:
            stack.enter_context(files.locked(folders[task]))
        # One that held the folder until now may have finished the store
        tasks = [task for task in tasks if not is_finished(folders[task], made[task])]
        journals = {}
        for task in tasks:
            files.remove_half_written(folders[task], *(folders[task] / name for name in listed))
            begun = begun_from(made[task], args.tasks)
            journals[task] = Journal(folders[task] / ".journal", begun)
            if args.skip_unreadable:
                for name, known in journals[task].skipped.items():
                    skipped[name] += [image for image in known if image not in skipped[name]]

        while tasks:
            # 2. Plan
            settings, plans, margin_px = make_plans(args, tasks, listed, skipped)
            require_room(folders, plans)

            # 3. Write, and once more as if the images that cannot be decoded were not there
            problems = {}
            for name in listed:
                writers = [
                    WRITERS[task](folders[task] / name, plans[task][name], journals[task])
                    for task in tasks
                ]
                problems[name] = write_split(writers, args.num_workers)
            unreadable = [text for of_split in problems.values() for text in of_split.values()]
            if not unreadable:
                break
            if not args.skip_unreadable:
                n_images = sum(map(len, plans[tasks[0]].values()))
                raise unreadable_error(unreadable, n_images)
            for name, images in problems.items():
                skipped[name] += images
                for task in tasks if images else []:
                    journals[task].skip(name, list(images))

        said = {}
        for task in tasks:
            for name in listed:
                entries = zip(plans[task][name], journals[task].noted(name), strict=True)
                said |= {p.micrograph.path.name: e["notes"] for p, e in entries if "notes" in e}
        warn_of_notes(said)

        # 4. Pictures, then metadata: a store is finished when its metadata.json is there
        for task in tasks:
            journal = journals[task]
            noted = {name: journal.noted(name) for name in listed}
            for name in listed:
                picture = folders[task] / f"montage_{name}.png"
                if task == "patches":
                    write_montage(folders[task] / name, plans[task][name], picture)
                else:
                    print_fractions(name, plans[task][name], noted[name])
                    write_mask_montage(folders[task] / name, picture)
                print(f"Wrote {picture}: look at it, a wrong frame or scale shows at a glance")
            metadata = {
                "made_from": made[task],
                "annotated_margin_px": margin_px,
                **settings[task].description(journal.content_hash()),
                **count_splits(settings[task], plans[task], noted, listed, skipped),
            }
            files.write_json(folders[task] / "metadata.json", metadata)
            journal.remove()
            rows = "patches" if task == "patches" else "images with masks"
            print(f"Finished {folders[task]}: {total(plans[task], 'n_rows'):,} {rows}")


def read_annotations(args: argparse.Namespace) -> Splits:
    """Return the splits: those of the data set, or train and val of the picks.

    Sets ``diameter_px``, ``own_px``, ``diameter_at`` and ``expected_particles`` of the arguments
    where the picks are one's own.
    """
    if args.micrographs:
        try:
            paths, listed = given_micrographs(args.micrographs, args.allow_partial)
        except UserError as error:
            if not args.session:
                raise
            where = f"{args.session}, whose files are relative to the working folder"
            raise UserError(f"{where}: {error}") from error
        val_paths, val_listed = given_micrographs(
            args.val_micrographs or [], args.allow_partial, "--val-micrographs"
        )
        said = {n: s for one in (listed, val_listed) if one for n, s in one.pixel_sizes.items()}
        found = {**paths, **val_paths}
        sizes = find_pixel_sizes(args.pixel_size, found, said)
        args.diameter_px, args.own_px = asked_diameters(args.diameter, sizes, found)
        # Of the micrographs on which particles are so wide; of no use where px just differ
        args.diameter_at = None if sizes.differ and not args.own_px else sizes.usual
        splits = read_splits(
            paths, val_paths, args.labels, args.frame, args.diameter_px, args.seed,
            args.skip_unreadable, args.allow_partial, args.category, args.own_px,
            sizes.of, args.beside,
        )  # fmt: skip
        args.expected_particles = expected_particles(args.expected_particles, splits)
        return splits
    names = annotations.find_splits(args.data_root, args.splits)
    annotations.say_csvs_without_image(args.data_root, names, args.allow_partial)
    splits = {
        name: annotations.read_split(args.data_root, name, args.category, args.allow_partial)
        for name in names
    }
    require_one_category({split.source: split.category for split in splits.values()})
    annotations.say_common(splits.values())
    return splits


def require_own_folders(args: argparse.Namespace, listed: Splits) -> None:
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


def made_from_arguments(args: argparse.Namespace, task: str, listed: Splits) -> dict:
    """Return what a store's content follows from."""
    if args.micrographs:
        windows = dataclasses.asdict(arguments.settings_of(args, task))
        return made_from("windows", {**vars(args), **windows}, listed)
    return made_from(task, vars(args), listed)


def make_plans(
    args: argparse.Namespace, tasks: list[str], listed: Splits, skipped: dict[str, list[str]]
) -> tuple[dict[str, Settings], dict[str, Plans], int]:
    """Plan every split without the images in ``skipped``, and print the counts.

    Returns settings and plans of each task and the annotated margin in px. Adds unreadable images
    to ``skipped``.
    """
    headers, distances_px = {}, {}
    for name, split in listed.items():
        limit = getattr(args, f"max_images_{name}")
        headers[name] = read_headers(
            split, limit, skipped[name], args.skip_unreadable, args.seed, args.num_workers
        )
    for name in listed:
        distances_px[name] = distances_to_edge(*headers[name])
        if not len(distances_px[name]):
            raise UserError(
                f"split '{name}' yields no {'patch' if 'patches' in tasks else 'mask'}: no "
                "particle's centre lies in a readable image; check its annotation or leave it out "
                "with --splits"
            )
    if args.data_root:
        for name, split in listed.items():
            require_boxes_fit(*headers[name], split.source)
        check_splits(listed)
    margin_px = 0
    if args.annotated_margin != "auto":
        margin_px = int(args.annotated_margin)
    elif not args.micrographs:
        # Train's for all: what is annotated in val or test must not change what is learnt from
        margin_px = int(next(iter(distances_px.values())).min())

    settings = {task: arguments.settings_of(args, task, margin_px) for task in tasks}
    plans: dict[str, Plans] = {task: {} for task in tasks}
    for task in tasks:
        for name in listed:
            plans[task][name] = settings[task].plan_split(name, *headers[name], args.num_workers)
        for name, split in listed.items():
            print_plans(settings[task], split, plans[task][name], skipped[name])
    if not args.micrographs:
        print(f"\nAnnotated margin: {margin_px} px ({args.annotated_margin})")
        for name, split_px in distances_px.items():
            if n_within := int((split_px < margin_px).sum()):
                print(f"  Note: nearer to an edge lie {n_within:,} of the particles of {name}")
    for task in tasks:
        print(
            f"Store: {total(plans[task], 'n_bytes') / 1e9:.2f} GB in {args.folders[task]}",
            flush=True,
        )
    return settings, plans, margin_px


def require_room(folders: dict[str, Path], plans: dict[str, Plans]) -> None:
    """Raise `UserError` when a disk lacks the room for all stores on it."""
    needed: dict[int, int] = {}
    for task, of_task in plans.items():
        present = [path for name in of_task for path in (folders[task] / name).glob("*.npy")]
        lacking = total(of_task, "n_bytes") - sum(path.stat().st_size for path in present)
        disk = folders[task].stat().st_dev
        needed[disk] = needed.get(disk, 0) + lacking
        files.require_room(folders[task], needed[disk])


if __name__ == "__main__":
    run_script(main)
