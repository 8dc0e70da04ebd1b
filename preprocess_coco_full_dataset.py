"""Turn annotated micrographs into a patch store for PU learning.

    python preprocess_coco_full_dataset.py \
        --data-root /data/CryoTransformer/train_val_test_data \
        --output-dir data/cryotransformer_full_pu \
        --patch-size 128 --hide-ratio 0.3 --neg-per-pos 1.0 --seed 42

The data root holds train/, val/ and test/ with micrographs, and annotations/instances_<split>.json
or particle_coordinates/<stem>.csv. The same command continues a run that was interrupted, and
leaves a finished store alone. --dry-run shows the plan, its counts and the bytes it needs.
"""

import argparse
from pathlib import Path

from picking import annotations, files, patches
from picking.errors import UserError, run_script
from picking.journal import Journal, require_same
from picking.micrographs import UnreadableImage, image_size
from picking.montage import write_montage
from picking.negatives import RULES
from picking.parallel import ordered_map
from picking.priors import split_priors
from picking.streams import stream

STORE_FORMAT = 1  # another number when the store's layout changes


def parse_args() -> argparse.Namespace:
    """Return the checked command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data-root", type=Path, required=True, help="the data set's top folder")
    add("--output-dir", type=Path, default=Path("data/cryotransformer_full_pu"))
    add("--patch-size", type=int, default=128, help="side of a patch in px of the micrograph")
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
    add("--skip-unreadable", action="store_true", help="leave out images that cannot be decoded")
    add("--dry-run", action="store_true", help="plan only: nothing is decoded or written")
    args = parser.parse_args()

    limits = [getattr(args, f"max_images_{split}") for split in annotations.SPLITS]
    for valid, message in (
        (args.patch_size >= 8, f"--patch-size is {args.patch_size}: choose 8 px or more"),
        (0 <= args.hide_ratio < 1, f"--hide-ratio is {args.hide_ratio}: choose 0 to below 1"),
        (0 <= args.neg_per_pos <= 100, f"--neg-per-pos is {args.neg_per_pos}: choose 0 to 100"),
        (0 <= args.hard_negatives <= 1, f"--hard-negatives is {args.hard_negatives}: choose 0-1"),
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
    """Read the annotations, plan, check the disk, cut, and write metadata and pictures."""
    args = parse_args()

    # 1. Annotations
    splits = annotations.find_splits(args.data_root, args.splits)
    output = args.output_dir.resolve()
    inputs = [(args.data_root / name).resolve() for name in annotations.SPLITS]
    if output == args.data_root.resolve() or any(f in (output, *output.parents) for f in inputs):
        raise UserError(f"--output-dir {args.output_dir} is among the micrographs: choose another")
    listed = {name: annotations.read_split(args.data_root, name) for name in splits}
    made_from = arguments_of(args, listed)
    if args.dry_run:
        make_plans(args, listed, skipped={name: [] for name in splits})
        return
    if (args.output_dir / "metadata.json").is_file():
        metadata = patches.read_metadata(args.output_dir)
        require_same(args.output_dir, metadata.get("made_from", {}), made_from)
        print(f"{args.output_dir} is complete already: nothing to do")
        return

    with files.locked(args.output_dir):
        # An unreadable image may be mended before the next run: the journal knows of each image
        begun_from = {key: value for key, value in made_from.items() if key != "images_hash"}
        journal = Journal(args.output_dir / ".journal", begun_from)
        skipped = journal.skipped if args.skip_unreadable else {name: [] for name in splits}
        while True:
            # 2. Plan
            plans, settings = make_plans(args, listed, skipped)
            present = sum(
                path.stat().st_size
                for path in (args.output_dir / name / "patches.npy" for name in splits)
                if path.exists()
            )
            files.require_room(args.output_dir, store_bytes(plans, args.patch_size) - present)

            # 3. Cut, and once more as if the images that cannot be decoded were not there
            problems = {
                name: patches.cut_split(
                    args.output_dir / name, plans[name], args.num_workers, journal
                )
                for name in splits
            }
            unreadable = [message for found in problems.values() for message in found.values()]
            if not unreadable:
                break
            if not args.skip_unreadable:
                raise unreadable_error(unreadable, sum(map(len, plans.values())))
            for name in splits:
                if problems[name]:
                    journal.skip(name, list(problems[name]))

        # 4. Pictures, then metadata: the store is finished when metadata.json is there
        for name in splits:
            picture = args.output_dir / f"montage_{name}.png"
            write_montage(args.output_dir / name, plans[name], picture)
            print(f"Wrote {picture}: look at it, a wrong frame or scale shows at a glance")
        metadata = describe(made_from, listed, plans, skipped, settings, journal.content_hash())
        files.write_json(args.output_dir / "metadata.json", metadata)
        journal.remove()
    print(f"Finished {args.output_dir}: {metadata['total']['n_patches']:,} patches")


def make_plans(
    args: argparse.Namespace, listed: dict[str, annotations.Split], skipped: dict[str, list[str]]
) -> tuple[dict[str, list[patches.MicrographPlan]], patches.PlanSettings]:
    """Plan every split without the images in ``skipped``, and print the counts.

    Images whose header cannot be read are added to ``skipped`` with --skip-unreadable.
    """
    records, sizes = {}, {}
    for name, split in listed.items():
        wanted = [m for m in limit_images(split, args) if m.name not in skipped[name]]
        read = list(ordered_map(try_size, wanted, args.num_workers, f"Headers {name}"))
        problems = [size for size in read if isinstance(size, str)]
        if problems and (not args.skip_unreadable or len(problems) == len(read)):
            raise unreadable_error(problems, len(read))
        skipped[name] += [m.name for m, s in zip(wanted, read, strict=True) if isinstance(s, str)]
        records[name] = [m for m in wanted if m.name not in skipped[name]]
        sizes[name] = [size for size in read if not isinstance(size, str)]
    margin_px = annotated_margin(args.annotated_margin, records, sizes)
    settings = patches.PlanSettings(
        patch_size_px=args.patch_size,
        hide_ratio=args.hide_ratio,
        neg_per_pos=args.neg_per_pos,
        seed=args.seed,
        neg_rule=args.neg_rule,
        margin_px=margin_px,
        top_up=args.top_up,
        hard_share=args.hard_negatives,
    )
    plans = {
        name: patches.plan_split(name, records[name], sizes[name], settings, args.num_workers)
        for name in records
    }
    for name, split in listed.items():
        if not sum(plan.n_rows for plan in plans[name]):
            raise UserError(
                f"split '{name}' yields no patch: no particle's centre lies in a readable image; "
                "check its annotation or leave it out with --splits"
            )
        print_counts(split, plans[name], skipped[name], settings)
    print(f"\nAnnotated margin: {margin_px} px ({args.annotated_margin})")
    n_bytes = store_bytes(plans, args.patch_size)
    print(f"Store: {n_bytes / 1e9:.2f} GB in {args.output_dir}", flush=True)
    return plans, settings


def store_bytes(plans: dict[str, list[patches.MicrographPlan]], patch_size_px: int) -> int:
    """Return the bytes that the patches of all splits take."""
    return sum(plan.n_rows for rows in plans.values() for plan in rows) * patch_size_px**2


def arguments_of(args: argparse.Namespace, listed: dict[str, annotations.Split]) -> dict:
    """Return what a store's content follows from; a store made from anything else is another."""
    return {
        "format": STORE_FORMAT,
        "patch_size": args.patch_size,
        "hide_ratio": args.hide_ratio,
        "neg_per_pos": args.neg_per_pos,
        "seed": args.seed,
        "splits": list(listed),
        "max_images": {s: getattr(args, f"max_images_{s}") for s in listed},
        "neg_rule": args.neg_rule,
        "annotated_margin": args.annotated_margin,
        "top_up": args.top_up,
        "hard_negatives": args.hard_negatives,
        "annotations_hash": files.sha256(*(s.annotations_hash for s in listed.values())),
        "images_hash": files.sha256(*(s.images_hash for s in listed.values())),
    }


def limit_images(
    split: annotations.Split, args: argparse.Namespace
) -> tuple[annotations.Micrograph, ...]:
    """Return the split's micrographs, or --max-images-... of them drawn at random."""
    limit = getattr(args, f"max_images_{split.name}")
    if limit is None or limit >= len(split.micrographs):
        return split.micrographs
    order = stream(args.seed, "max-images", split.name).permutation(len(split.micrographs))
    return tuple(split.micrographs[i] for i in sorted(order[:limit]))


def try_size(micrograph: annotations.Micrograph) -> tuple[int, int] | str:
    """Return (height, width) px, or what is wrong with the file."""
    try:
        return image_size(micrograph.path)
    except UnreadableImage as error:
        return str(error)


def unreadable_error(problems: list[str], n_images: int) -> UserError:
    """Name and count the images that cannot be read."""
    return UserError(
        f"{len(problems)} of {n_images} micrographs cannot be read: {'; '.join(problems[:3])}"
        f"{'; ...' if len(problems) > 3 else ''}; mend them and run the same command again, or "
        "leave them out with --skip-unreadable"
    )


def annotated_margin(
    asked: str,
    records: dict[str, list[annotations.Micrograph]],
    sizes: dict[str, list[tuple[int, int]]],
) -> int:
    """Return the margin in px: as asked, or for auto the largest that no centre enters."""
    if asked != "auto":
        return int(asked)
    margin = None
    for name, split_records in records.items():
        for record, size in zip(split_records, sizes[name], strict=True):
            centres = record.centres_px[annotations.inside(record, size)]
            if len(centres):
                nearest = min(centres.min(), (size - centres).min())
                margin = nearest if margin is None else min(margin, nearest)
    return int(margin or 0)


def count(plans: list[patches.MicrographPlan]) -> dict[str, int]:
    """Return how many patches of each kind are planned."""
    return {
        "n_labeled": sum(len(p.labelled_px) for p in plans),
        "n_hidden": sum(len(p.hidden_px) for p in plans),
        "n_negative": sum(p.n_negative for p in plans),
    }


def shortage(plans: list[patches.MicrographPlan]) -> int:
    """Return how many of the wanted negatives a split lacks, after any top-up."""
    return max(0, sum(p.n_negatives_wanted - p.n_negative for p in plans))


def print_counts(
    split: annotations.Split,
    plans: list[patches.MicrographPlan],
    skipped: list[str],
    settings: patches.PlanSettings,
) -> None:
    """Print the lines that users look for, and what was left out."""
    counts = count(plans)
    priors = split_priors(**counts)
    n_short = shortage(plans)
    n_dropped = sum(p.n_outside + p.micrograph.n_zero_area for p in plans)
    n_wanted = sum(p.n_negatives_wanted for p in plans)

    def shown(prior: float | None) -> str:
        return "none" if prior is None else f"{prior:.4f}"

    print(f"\nProcessing {split.name} split")
    print(f"Total images: {len(plans)}")
    print(f"  Positive patches: {counts['n_labeled']:,}")
    print(
        f"  Unlabeled patches: {counts['n_hidden'] + counts['n_negative']:,} "
        f"({counts['n_hidden']:,} hidden positives, {counts['n_negative']:,} negatives)"
    )
    print(
        f"  Actual prior (π): {shown(priors['actual_prior'])}   in the unlabeled set: "
        f"{shown(priors['unlabeled_prior'])}   in the pool: {shown(priors['pool_prior'])}"
    )
    if n_short:
        room = "" if settings.top_up else "; --top-up fills them from micrographs with room"
        print(
            f"  Shortage: {n_short:,} of {n_wanted:,} negatives find no place by the rule "
            f"'{settings.neg_rule}'{room}"
        )
    if n_dropped:
        print(f"  Dropped annotations (no area or centre outside the image): {n_dropped:,}")
    for n, what in (
        (split.n_images_unannotated, "images without annotation, left out"),
        (split.n_images_missing, "annotated images that are not there, left out"),
        (split.n_annotations_orphaned, "annotations of unknown images, left out"),
        (len(skipped), "images that cannot be read, left out"),
    ):
        if n:
            print(f"  Note: {n:,} {what}")


def describe(
    made_from: dict,
    listed: dict[str, annotations.Split],
    plans: dict[str, list[patches.MicrographPlan]],
    skipped: dict[str, list[str]],
    settings: patches.PlanSettings,
    content_hash: str,
) -> dict:
    """Return the content of metadata.json."""

    def summary(rows: list[patches.MicrographPlan]) -> dict:
        counts = count(rows)
        n_particles = counts["n_labeled"] + counts["n_hidden"]
        return {
            "n_images": len(rows),
            "n_patches": sum(counts.values()),
            **counts,
            "n_hard_negative": sum(len(p.off_centre_px) + p.n_outliers for p in rows),
            **split_priors(**counts),
            "hide_ratio_requested": settings.hide_ratio,
            "hide_ratio": counts["n_hidden"] / n_particles if n_particles else None,
            "neg_per_pos_requested": settings.neg_per_pos,
            "neg_per_pos": counts["n_negative"] / n_particles if n_particles else None,
            "n_negative_short": shortage(rows),
            "n_dropped": {
                "zero_area": sum(p.micrograph.n_zero_area for p in rows),
                "centre_outside": sum(p.n_outside for p in rows),
            },
        }

    split_parts = {}
    for name, rows in plans.items():
        split_parts[name] = {
            **summary(rows),
            "source": listed[name].source,
            "n_images_unannotated": listed[name].n_images_unannotated,
            "n_images_missing": listed[name].n_images_missing,
            "n_annotations_orphaned": listed[name].n_annotations_orphaned,
            "skipped_unreadable": sorted(skipped[name]),
            "micrographs": [
                {
                    "name": p.micrograph.name,
                    "empiar_id": p.micrograph.empiar_id,
                    "size_px": list(p.size_px),
                    "n_particles": len(p.labelled_px) + len(p.hidden_px),
                    "n_negative": p.n_negative,
                    "n_negative_short": max(0, p.n_negatives_wanted - p.n_negative),
                }
                for p in rows
            ],
        }
    return {
        "made_from": made_from,
        "annotated_margin_px": settings.margin_px,
        "patch_size_px": settings.patch_size_px,
        "content_hash": content_hash,
        "splits": split_parts,
        "total": summary([p for rows in plans.values() for p in rows]),
    }


if __name__ == "__main__":
    run_script(main)
