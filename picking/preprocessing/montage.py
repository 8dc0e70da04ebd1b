"""Pictures of a split's patches and masks, so that a wrong frame or scale is seen at a glance."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from picking.files import read_json, write_saved
from picking.formats.names import in_picture
from picking.mask_values import IGNORE, PARTICLE
from picking.micrographs.preparation import visible
from picking.micrographs.reading import read_micrograph
from picking.preprocessing.patch_plan import PatchPlan
from picking.preprocessing.windows.plan import WindowPlan
from picking.stores.patches import TAG_NO_PARTICLE, TAG_WINDOW

ROWS, COLUMNS = 2, 6
COLOURS = {"labelled": "#2ca02c", "hidden": "#1f77b4", "negative": "#d62728", "unknown": "#ff7f0e",
           "no particle": "#d62728"}  # fmt: skip
SHOWN_UNKNOWN = 50  # on the micrograph; all of them would hide it
MAX_SHOWN_PX = 1024  # the whole micrograph is shown at most this large
MASK_ROWS, MASK_COLUMNS = 2, 3
MAX_CORNER_PX = 384
OUTLINE = (60, 220, 60)  # RGB


def write_montage(folder: Path, plans: Sequence[PatchPlan | WindowPlan], path: Path) -> None:
    """Write a PNG: the micrograph with the most patches, and patches of each kind from the split.

    folder: one split of a patch store, with patches.npy and index.npz. On the micrograph positives
    are circles of the particle's diameter, negatives and windows are squares of the patch.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle, Rectangle

    patches = np.load(folder / "patches.npy", mmap_mode="r")
    with np.load(folder / "index.npz") as index:
        label, labeled = index["label"].astype(bool), index["labeled"]
        micrograph, centre, tag = index["micrograph"], index["centre"], index["tag"]
    rows_of = {
        "labelled": labeled, "hidden": label & ~labeled, "negative": ~label,
        "unknown": tag == TAG_WINDOW, "no particle": tag == TAG_NO_PARTICLE,
    }  # fmt: skip
    kinds = {kind: rows_of[kind] for kind in plans[0].kinds}
    if not kinds.get("no particle", label).any():
        kinds.pop("no particle", None)

    figure = Figure(figsize=(16, 8), layout="constrained")
    axes = figure.subplot_mosaic([["whole", kind] for kind in kinds])

    # The whole micrograph with all centres
    richest = int(np.argmax([plan.n_particles for plan in plans]))
    plan = plans[richest]
    image = read_micrograph(plan.micrograph.path)
    step = -(-max(image.shape) // MAX_SHOWN_PX)
    height, width = plan.size_px
    whole = axes["whole"]
    whole.imshow(image[::step, ::step], cmap="gray", extent=(0, width, height, 0))
    side, square_px = plan.patch_size_px, plan.patch_size_px / plan.scale
    radius = plan.micrograph.diameters_px.mean() / 2
    for kind, rows in kinds.items():
        own = centre[rows & (micrograph == richest)]
        marks = [
            Rectangle((x - square_px / 2, y - square_px / 2), square_px, square_px)
            if kind in ("negative", "unknown")
            else Circle((x, y), radius)
            for y, x in own[: SHOWN_UNKNOWN if kind == "unknown" else None]
        ]
        whole.add_collection(PatchCollection(marks, facecolor="none", edgecolor=COLOURS[kind]))
    whole.set_title(in_picture(plan.micrograph.name), fontsize=9, parse_math=False)
    whole.set_axis_off()

    # Patches of each kind, spread evenly over the split
    for kind, rows in kinds.items():
        of_kind = np.flatnonzero(rows)
        n = min(ROWS * COLUMNS, len(of_kind))
        tiles = np.full((ROWS * COLUMNS, side + 8, side + 8), 255, np.uint8)
        chosen = of_kind[np.linspace(0, len(of_kind) - 1, n).astype(int)] if n else of_kind
        tiles[:n, 4:-4, 4:-4] = visible(patches[chosen])
        sheet = tiles.reshape(ROWS, COLUMNS, side + 8, side + 8).swapaxes(1, 2)
        axes[kind].imshow(
            sheet.reshape(ROWS * (side + 8), -1), cmap="gray", vmin=0, vmax=255, aspect="equal"
        )
        axes[kind].set_title(f"{kind}: {len(of_kind):,}", color=COLOURS[kind], fontsize=11)
        axes[kind].set_axis_off()
    write_saved(path, lambda file: figure.savefig(file, dpi=90, format="png"))


def write_mask_montage(folder: Path, path: Path) -> None:
    """Write a PNG: images spread evenly over the split, particles outlined, what is ignored red.

    folder: one split of a segmentation store, with images.npy, masks.npy and index.json. Of large
    images two opposite corners are shown in turn: there a wrong frame or scale shows most.
    """
    from matplotlib.figure import Figure
    from scipy.ndimage import binary_erosion

    images = np.load(folder / "images.npy", mmap_mode="r")
    masks = np.load(folder / "masks.npy", mmap_mode="r")
    listed = read_json(folder / "index.json")["images"]
    n = min(MASK_ROWS * MASK_COLUMNS, len(images))
    rows, columns = -(-n // MASK_COLUMNS), min(n, MASK_COLUMNS)
    figure = Figure(figsize=(6 * columns, 6.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    corners = (slice(0, MAX_CORNER_PX), slice(-MAX_CORNER_PX, None))
    for k, i in enumerate(np.linspace(0, len(images) - 1, n).astype(int)):
        axis, corner = axes[k], (corners[k % 2], corners[k % 2])
        image, mask = visible(images[i][corner]), masks[i][corner]
        picture = np.repeat(image[..., None], 3, axis=2)
        picture[mask == IGNORE, 1:] //= 2
        picture[(mask == PARTICLE) & ~binary_erosion(mask == PARTICLE)] = OUTLINE
        axis.imshow(picture)
        title = f"{in_picture(listed[i]['name'])}: {listed[i]['n_particles']:,} particles"
        axis.set_title(title, fontsize=9, parse_math=False)  # $ in a name begins no formula
    for axis in axes:
        axis.set_axis_off()
    write_saved(path, lambda file: figure.savefig(file, dpi=90, format="png"))
