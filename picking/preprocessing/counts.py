"""What a store holds, in numbers: for the terminal and for its metadata.json."""

from collections.abc import Sequence
from typing import Any

from picking.formats.annotations import Split
from picking.preprocessing.plan import PatchSettings
from picking.preprocessing.windows import WindowSettings
from picking.stores.masks import ImagePlan, MaskSettings, pixel_fractions

Settings = PatchSettings | WindowSettings | MaskSettings  # of what a store holds
Plans = dict[str, list[Any]]  # split -> a plan of each micrograph, as the settings make them


def n_rows(plans: Plans) -> int:
    """Return the rows of all splits."""
    return sum(plan.n_rows for of_split in plans.values() for plan in of_split)


def print_plans(settings: Settings, split: Split, plans: list[Any], skipped: list[str]) -> None:
    """Print what a split will hold, and what is left out of it."""
    print("\n" + "\n".join(settings.lines(split.name, plans)))
    n_dropped = sum(_dropped(plans).values())
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
    return {"splits": splits, "total": summary(list(plans))}


def _dropped(plans: list[Any]) -> dict[str, int]:
    """Return how many annotations are not used, and why."""
    return {
        "zero_area": sum(p.micrograph.n_zero_area for p in plans),
        "centre_outside": sum(p.n_outside for p in plans),
    }
