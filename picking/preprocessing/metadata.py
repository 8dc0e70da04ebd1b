"""What metadata.json says of a store: what it is made from, and the counts of what it holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from picking.files import sha256
from picking.inputs.annotations import Split
from picking.micrographs.junk import coarsest
from picking.micrographs.preparation import PREPARATION
from picking.micrographs.problems import BAD_PX
from picking.preprocessing.patch_plan import PatchSettings
from picking.preprocessing.windows.settings import WindowSettings
from picking.stores.journal import require_made_from
from picking.stores.masks import ImagePlan, MaskSettings, pixel_fractions
from picking.stores.patches import read_metadata

Settings = PatchSettings | WindowSettings | MaskSettings  # of what a store holds
Plans = dict[str, list[Any]]  # split -> a plan of each micrograph, as the settings make them

STORE_FORMAT = 1  # another number when a store's layout changes
# The arguments that decide a store's content
ARGUMENTS = {
    "patches": (
        "patch_size", "hide_ratio", "neg_per_pos", "seed", "splits", "max_images", "neg_rule",
        "annotated_margin", "top_up", "hard_negatives",
    ),
    "windows": (
        "window_px", "diameter_px", "per_micrograph", "expected_particles", "seed", "splits",
        "max_images",
    ),
    "segmentation": (
        "seg_size", "resize", "seg_tiles", "seg_disk", "seg_ignore_margin", "annotated_margin",
        "seed", "splits", "max_images",
    ),
}  # fmt: skip


def made_from(kind: str, arguments: Mapping[str, Any], listed: dict[str, Split]) -> dict[str, Any]:
    """Return what a store's content follows from; if any of this changes, it must be made anew.

    kind: of `ARGUMENTS`; arguments: their values, with max_images_train and so on in place of
    ``splits`` and ``max_images``.
    """
    limits = {split: arguments[f"max_images_{split}"] for split in listed}
    values = {**arguments, "splits": list(listed), "max_images": limits}
    if kind == "segmentation":  # two that do nothing to masks by themselves
        values["annotated_margin"] = (
            values["annotated_margin"] if values["seg_ignore_margin"] else None
        )
        values["seed"] = values["seed"] if any(limits.values()) else None
    made = {
        "format": STORE_FORMAT,
        "preparation": PREPARATION,
        **{name: values[name] for name in ARGUMENTS[kind]},
        "annotations_hash": sha256(*(split.annotations_hash for split in listed.values())),
        "images_hash": sha256(*(split.images_hash for split in listed.values())),
    }
    if values.get("own_px"):  # of windows, where micrographs have px of several sizes
        made["own_diameters_px"] = values["own_px"]
    # Only where there is a choice, so that stores without one stay what they were
    categories = [split.category for split in listed.values() if split.n_annotations_of_others]
    return {**made, "category": categories[0]} if categories else made


def begun_from(made: dict[str, Any], tasks: list[str]) -> dict[str, Any]:
    """Return what an unfinished store's content follows from, given what the finished one's does.

    An unreadable image may be mended before the next run: the journal knows of each image. The
    tasks decide at which scale JPEGs are decoded for masks.
    """
    begun = {key: value for key, value in made.items() if key != "images_hash"}
    return {**begun, "tasks": tasks} if "seg_size" in made else begun


def is_finished(folder: Path, made: dict) -> bool:
    """Return whether the store is complete; raises `UserError` when it is made from else."""
    if not (folder / "metadata.json").is_file():
        return False
    require_made_from(folder, read_metadata(folder).get("made_from", {}), made)
    (folder / ".journal").unlink(missing_ok=True)  # of a process that was killed just before that
    print(f"{folder} is complete already: nothing to do")
    return True


def total(plans: Plans, of_one: str) -> int:
    """Return the sum of ``of_one``, n_rows or n_bytes, over all splits."""
    return sum(getattr(plan, of_one) for of_split in plans.values() for plan in of_split)


def print_plans(settings: Settings, split: Split, plans: list[Any], skipped: list[str]) -> None:
    """Print what a split will hold, and what is left out of it."""
    print("\n" + "\n".join(settings.lines(split.name, plans)))
    n_dropped = sum(_dropped(plans).values())
    if n_dropped:
        print(f"  Dropped annotations (no area or centre outside the image): {n_dropped:,}")
    for n, what in (
        (split.n_images_unannotated, "images without annotation, left out"),
        (split.n_annotations_orphaned, "annotations of unknown images, left out"),
        (split.n_annotations_of_others, "annotations of other categories, left out"),
        (len(skipped), "images that cannot be read, left out"),
    ):
        if n:
            print(f"  Note: {n:,} {what}")


def print_fractions(split: str, plans: Sequence[ImagePlan], noted: list[dict]) -> None:
    """Print what the masks of a split turned out to hold; noted: as the journal says it."""
    fractions = pixel_fractions(plans, noted)
    print(
        f"Split {split}: particles take {fractions['positive_share'] or 0:.1%} of the pixels; "
        f"{fractions['ignored_share']:.1%} of all are ignored"
    )


def count_splits(
    settings: Settings,
    plans: Plans,
    noted: dict[str, list[dict]],
    listed: dict[str, Split],
    skipped: dict[str, list[str]],
) -> dict:
    """Return the counts of metadata.json, by split and in total.

    noted: by split, what the journal says of each micrograph; skipped: names of those left out
    because they cannot be read.
    """

    def summary(names: list[str]) -> dict:
        """Return what these splits have in all."""
        rows = [plan for name in names for plan in plans[name]]
        entries = [entry for name in names for entry in noted[name]]
        return {**settings.summary(rows, entries), "n_dropped": _dropped(rows)}

    splits = {}
    for name, split in listed.items():
        splits[name] = {
            **summary([name]),
            "source": split.source,
            "n_images_unannotated": split.n_images_unannotated,
            "n_images_missing": split.n_images_missing,
            "n_annotations_orphaned": split.n_annotations_orphaned,
            "skipped_unreadable": sorted(skipped[name]),
        }
        if n_bad := sum(entry.get("notes", {}).get(BAD_PX, 0) for entry in noted[name]):
            splits[name]["bad_px_replaced"] = n_bad
        if not isinstance(settings, MaskSettings):  # there index.json lists them
            splits[name]["micrographs"] = [
                {
                    "name": plan.micrograph.name,
                    "empiar_id": plan.micrograph.empiar_id,
                    "size_px": list(plan.size_px),
                    **plan.counts(),
                }
                for plan in plans[name]
            ]
    every = [entry for of_split in noted.values() for entry in of_split]
    return {"splits": splits, "total": summary(list(plans)), "coarseness": coarsest(every)}


def _dropped(plans: list[Any]) -> dict[str, int]:
    """Return how many annotations are not used, and why."""
    return {
        "zero_area": sum(p.micrograph.n_zero_area for p in plans),
        "centre_outside": sum(p.n_outside for p in plans),
    }
