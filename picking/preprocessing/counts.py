"""What a store holds, in numbers: for the terminal and for its metadata.json."""

from picking.formats import annotations
from picking.preprocessing import plan, windows
from picking.stores import masks


def split_priors(n_labeled: int, n_hidden: int, n_negative: int) -> dict[str, float | None]:
    """Return the three priors of a split, None where there is no patch to divide by.

    - ``actual_prior``: labelled positives / all patches.
    - ``pool_prior``: all positives / all patches.
    - ``unlabeled_prior``: hidden positives / unlabeled patches; π_U of `nnpu_risk`.

    Args:
        n_labeled: positives in P.
        n_hidden: positives in U.
        n_negative: negatives, all of them in U.
    """
    n_unlabeled = n_hidden + n_negative
    n_all = n_labeled + n_unlabeled
    return {
        "actual_prior": n_labeled / n_all if n_all else None,
        "pool_prior": (n_labeled + n_hidden) / n_all if n_all else None,
        "unlabeled_prior": n_hidden / n_unlabeled if n_unlabeled else None,
    }


def print_patches(
    split: annotations.Split,
    plans: list[plan.MicrographPlan],
    skipped: list[str],
    settings: plan.PlanSettings,
) -> None:
    """Print the lines on a split's patches that users look for, and what was left out."""
    counts = _count(plans)
    priors = split_priors(**counts)
    n_short = _shortage(plans)
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
    _print_left_out(split, plans, skipped)


def print_windows(
    split: annotations.Split,
    plans: list[plan.MicrographPlan],
    skipped: list[str],
    settings: windows.WindowSettings,
) -> None:
    """Print how many windows a split has, about how many picks."""
    about = _describe_windows(plans, settings)
    print(f"\nWindows of {split.name} split")
    n_picked = sum(len(p.labelled_px) > 0 for p in plans)
    print(f"Total images: {len(plans)}, {n_picked} of them with picks")
    print(f"  Scale: {settings.scale:.4f}; a particle becomes {windows.PARTICLE_PX} px wide")
    print(f"  Picks: {about['n_labeled']:,}, a window about each")
    print(f"  Unlabeled windows, anywhere: {about['n_unlabeled']:,}")
    if settings.expected_particles is None:
        print("  Share of positives among their places: left to training to estimate")
    else:
        print(
            f"  Share of positives among their places: {about['pool_prior']:.4f}; "
            f"of those near no pick: {about['unlabeled_prior']:.4f}"
        )
    _print_left_out(split, plans, skipped)


def print_images(
    split: annotations.Split, plans: list[masks.ImagePlan], skipped: list[str]
) -> None:
    """Print what a split's images and masks will be, and what was left out."""
    side_px = plans[0].settings.side_px
    n_enlarged = sum(plan.scale.max() > 1 for plan in plans)
    print(f"\nSegmentation of {split.name} split")
    print(f"Total micrographs: {len(plans)}")
    print(f"  Images: {sum(plan.n_rows for plan in plans):,} of {side_px} x {side_px} px")
    print(f"  Particles: {sum(len(plan.centres_px) for plan in plans):,}")
    if n_enlarged:
        print(f"  Note: {n_enlarged:,} micrographs are smaller than that and are enlarged")
    _print_left_out(split, plans, skipped)


def print_shares(
    split: str, plans: list[masks.ImagePlan], drawn: dict[tuple[str, int], dict]
) -> None:
    """Print what the masks of a split turned out to hold; drawn: as in `describe_images`."""
    shares = _shares(plans, [drawn[split, i] for i in range(len(plans))])
    print(
        f"Split {split}: particles take {shares['positive_share'] or 0:.1%} of the pixels; "
        f"{shares['ignored_share']:.1%} of all are ignored"
    )


def describe_patches(
    plans: dict[str, list[plan.MicrographPlan]],
    listed: dict[str, annotations.Split],
    skipped: dict[str, list[str]],
    requested: dict[str, float],
) -> dict:
    """Return the counts of metadata.json, by split and in total, with what was asked for."""

    def summary(rows: list[plan.MicrographPlan]) -> dict:
        """Return what these micrographs have in all."""
        counts = _count(rows)
        n_particles = counts["n_labeled"] + counts["n_hidden"]
        return {
            "n_images": len(rows),
            "n_patches": sum(counts.values()),
            **counts,
            "n_hard_negative": sum(len(p.off_centre_px) + p.n_outliers for p in rows),
            **split_priors(**counts),
            "hide_ratio_requested": requested["hide_ratio"],
            "hide_ratio": counts["n_hidden"] / n_particles if n_particles else None,
            "neg_per_pos_requested": requested["neg_per_pos"],
            "neg_per_pos": counts["n_negative"] / n_particles if n_particles else None,
            "n_negative_short": _shortage(rows),
            "n_dropped": _dropped(rows),
        }

    split_parts = {}
    for name, rows in plans.items():
        split_parts[name] = {
            **summary(rows),
            **_left_out(listed[name], skipped[name]),
            "micrographs": [
                {
                    **_micrograph(p),
                    "n_negative": p.n_negative,
                    "n_negative_short": max(0, p.n_negatives_wanted - p.n_negative),
                }
                for p in rows
            ],
        }
    total = summary([p for rows in plans.values() for p in rows])
    return {"splits": split_parts, "total": total}


def describe_windows(
    plans: dict[str, list[plan.MicrographPlan]],
    listed: dict[str, annotations.Split],
    skipped: dict[str, list[str]],
    settings: windows.WindowSettings,
) -> dict:
    """Return the counts of metadata.json for windows, by split and in total.

    ``windows`` there says that what is not labelled is unknown, and how micrographs are scaled.
    """
    split_parts = {}
    for name, rows in plans.items():
        split_parts[name] = {
            **_describe_windows(rows, settings),
            **_left_out(listed[name], skipped[name]),
            "micrographs": [_micrograph(p) for p in rows],
        }
    return {
        "windows": {
            "scale": settings.scale,
            "diameter_px": settings.diameter_px,
            "reach_px": windows.REACH_PX,
        },
        "splits": split_parts,
        "total": _describe_windows([p for rows in plans.values() for p in rows], settings),
    }


def describe_images(
    plans: dict[str, list[masks.ImagePlan]],
    listed: dict[str, annotations.Split],
    skipped: dict[str, list[str]],
    drawn: dict[tuple[str, int], dict],
) -> dict:
    """Return the counts of metadata.json, by split and in total.

    drawn: what the journal notes on each (split, i).
    """

    def summary(names: list[str]) -> dict:
        """Return what these splits have in all."""
        rows = [plan for name in names for plan in plans[name]]
        return {
            "n_images": sum(plan.n_rows for plan in rows),
            "n_micrographs": len(rows),
            "n_particles": sum(len(plan.centres_px) for plan in rows),
            **_shares(rows, [drawn[name, i] for name in names for i in range(len(plans[name]))]),
            "n_dropped": _dropped(rows),
        }

    split_parts = {
        name: {**summary([name]), **_left_out(listed[name], skipped[name])} for name in plans
    }
    return {"splits": split_parts, "total": summary(list(plans))}


def _count(plans: list[plan.MicrographPlan]) -> dict[str, int]:
    """Return how many patches of each kind are planned."""
    return {
        "n_labeled": sum(len(p.labelled_px) for p in plans),
        "n_hidden": sum(len(p.hidden_px) for p in plans),
        "n_negative": sum(p.n_negative for p in plans),
    }


def _micrograph(plan: plan.MicrographPlan) -> dict:
    """Return what metadata.json says of every micrograph of a patch store."""
    return {
        "name": plan.micrograph.name,
        "empiar_id": plan.micrograph.empiar_id,
        "size_px": list(plan.size_px),
        "n_particles": len(plan.labelled_px) + len(plan.hidden_px),
    }


def _describe_windows(plans: list[plan.MicrographPlan], settings: windows.WindowSettings) -> dict:
    """Return the counts of some micrographs' windows, and the priors where they are known."""
    return {
        "n_images": len(plans),
        "n_patches": sum(p.n_rows for p in plans),
        "n_labeled": sum(len(p.labelled_px) for p in plans),
        "n_unlabeled": sum(len(p.windows_px) for p in plans),
        **windows.place_priors(
            settings, [p.size_px for p in plans], [len(p.labelled_px) for p in plans]
        ),
        "n_dropped": _dropped(plans),
    }


def _shortage(plans: list[plan.MicrographPlan]) -> int:
    """Return how many of the wanted negatives a split lacks, after any top-up."""
    return max(0, sum(p.n_negatives_wanted - p.n_negative for p in plans))


def _shares(plans: list[masks.ImagePlan], drawn: list[dict]) -> dict[str, float | None]:
    """Return the share of particles in the pixels not ignored, and of ignored ones in all."""
    n_pixels = sum(plan.n_rows * plan.settings.side_px**2 for plan in plans)
    n_ignored = sum(entry["n_ignored"] for entry in drawn)
    n_positive = sum(entry["n_positive"] for entry in drawn)
    n_counted = n_pixels - n_ignored
    return {
        "positive_share": n_positive / n_counted if n_counted else None,
        "ignored_share": n_ignored / n_pixels,
    }


def _dropped(plans: list) -> dict[str, int]:
    """Return how many annotations of the plans of either store are not used, and why."""
    return {
        "zero_area": sum(p.micrograph.n_zero_area for p in plans),
        "centre_outside": sum(p.n_outside for p in plans),
    }


def _left_out(split: annotations.Split, skipped: list[str]) -> dict:
    return {
        "source": split.source,
        "n_images_unannotated": split.n_images_unannotated,
        "n_images_missing": split.n_images_missing,
        "n_annotations_orphaned": split.n_annotations_orphaned,
        "skipped_unreadable": sorted(skipped),
    }


def _print_left_out(split: annotations.Split, plans: list, skipped: list[str]) -> None:
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
