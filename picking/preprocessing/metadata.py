"""What a store is made from, as its journal and its metadata.json say it."""

from collections.abc import Mapping
from typing import Any

from picking.files import sha256
from picking.formats.annotations import Split

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
    """Return what a store's content follows from; a store made from anything else is another.

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
    return {
        "format": STORE_FORMAT,
        **{name: values[name] for name in ARGUMENTS[kind]},
        "annotations_hash": sha256(*(split.annotations_hash for split in listed.values())),
        "images_hash": sha256(*(split.images_hash for split in listed.values())),
    }


def begun_from(made: dict[str, Any], tasks: list[str]) -> dict[str, Any]:
    """Return what an unfinished store's content follows from, given what the finished one's does.

    An unreadable image may be mended before the next run: the journal knows of each image. The
    tasks decide at which scale JPEGs are decoded for masks.
    """
    begun = {key: value for key, value in made.items() if key != "images_hash"}
    return {**begun, "tasks": tasks} if "seg_size" in made else begun
