"""What a store is made from and what it holds, as its journal and its metadata.json say it."""

import argparse
import dataclasses
from typing import Any

from picking import files
from picking.formats import annotations
from picking.preprocessing import counts, windows
from picking.stores import masks
from picking.stores.journal import Journal

STORE_FORMAT = 1  # another number when a store's layout changes


def window_settings(args: argparse.Namespace) -> windows.WindowSettings:
    """Return what the command says of windows."""
    return windows.WindowSettings(
        window_px=args.patch_size,
        diameter_px=args.diameter_px,
        per_micrograph=args.windows_per_micrograph,
        expected_particles=args.expected_particles,
        seed=args.seed,
    )


def arguments_of(
    args: argparse.Namespace, task: str, listed: dict[str, annotations.Split]
) -> dict[str, Any]:
    """Return what a store's content follows from; a store made from anything else is another."""
    limits = {s: getattr(args, f"max_images_{s}") for s in listed}
    inputs_hashes = {
        "annotations_hash": files.sha256(*(s.annotations_hash for s in listed.values())),
        "images_hash": files.sha256(*(s.images_hash for s in listed.values())),
    }
    if task == "segmentation":
        return {
            "format": STORE_FORMAT,
            "seg_size": args.seg_size,
            "resize": args.resize,
            "seg_tiles": args.seg_tiles,
            "seg_disk": args.seg_disk,
            "seg_ignore_margin": args.seg_ignore_margin,
            "annotated_margin": args.annotated_margin if args.seg_ignore_margin else None,
            "seed": args.seed if any(limits.values()) else None,
            "splits": list(listed),
            "max_images": limits,
            **inputs_hashes,
        }
    if args.micrographs:
        settings = dataclasses.asdict(window_settings(args))
        of_splits = {"splits": list(listed), "max_images": limits}
        return {"format": STORE_FORMAT, **settings, **of_splits, **inputs_hashes}
    return {
        "format": STORE_FORMAT,
        "patch_size": args.patch_size,
        "hide_ratio": args.hide_ratio,
        "neg_per_pos": args.neg_per_pos,
        "seed": args.seed,
        "splits": list(listed),
        "max_images": limits,
        "neg_rule": args.neg_rule,
        "annotated_margin": args.annotated_margin,
        "top_up": args.top_up,
        "hard_negatives": args.hard_negatives,
        **inputs_hashes,
    }


def begun_from_arguments(args: argparse.Namespace, task: str, made_from: dict) -> dict[str, Any]:
    """Return what an unfinished store's content follows from.

    An unreadable image may be mended before the next run: the journal knows of each image. The
    tasks decide at which scale JPEGs are decoded, which differs by part of a grey level.
    """
    begun_from = {key: value for key, value in made_from.items() if key != "images_hash"}
    return {**begun_from, "tasks": args.tasks} if task == "segmentation" else begun_from


def describe(
    args: argparse.Namespace,
    task: str,
    plans: dict[str, list[Any]],
    listed: dict[str, annotations.Split],
    skipped: dict[str, list[str]],
    journal: Journal,
) -> dict[str, Any]:
    """Return a store's part of its metadata.json."""
    if args.micrographs:
        return {
            "patch_size_px": args.patch_size,
            "content_hash": journal.content_hash(),
            **counts.describe_windows(plans, listed, skipped, window_settings(args)),
        }
    if task == "patches":
        requested = {"hide_ratio": args.hide_ratio, "neg_per_pos": args.neg_per_pos}
        return {
            "patch_size_px": args.patch_size,
            "content_hash": journal.content_hash(),
            **counts.describe_patches(plans, listed, skipped, requested),
        }
    return {
        "seg_size_px": args.seg_size,
        "resize": args.resize,
        "tiles": args.seg_tiles,
        "disk": args.seg_disk,
        "normalisation": masks.NORMALISATION,
        "jpegs_decoded": "whole" if "patches" in args.tasks else "at reduced scale",
        "content_hash": journal.content_hash(),
        **counts.describe_images(plans, listed, skipped, journal.done),
    }
