"""The simulator's picture: a micrograph, the same with its truth, and its power spectrum."""

import io
from pathlib import Path

from PIL import Image

from picking.files import read_json, write_saved
from picking.micrographs.preparation import raw_to_uint8
from picking.simulation.ctf import ctf_zeros, radial_power
from picking.simulation.plans import Arguments, plan_dataset, simulate_planned

PANEL_PX = 560
COLOURS = {"listed": (255, 200, 0), "margin": (0, 190, 255), "zeros": (220, 20, 60)}
N_ZEROS = 5


def draw_figure(output: Path, path: Path) -> None:
    """Draw the data set's clearest micrograph with carbon and ice into ``path``, a PNG.

    Left as its JPEG shows it, right with every particle circled (yellow: listed; blue: in the
    margin, so not listed), below the power of the raw counts, averaged over rings, with the
    frequencies at which theory says that the CTF is zero.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    record = read_json(output / "simulation.json")
    margin_px = record["annotation_margin_px"]
    plans = plan_dataset(Arguments(**record["arguments"]))
    plan = max(plans, key=lambda plan: (plan.carbon and plan.n_crystals > 0, plan.snr))
    image = simulate_planned(plan)
    height, width = plan.size_px
    shown = Image.fromarray(raw_to_uint8(image.raw)).resize(
        (PANEL_PX, PANEL_PX), Image.Resampling.BOX
    )

    figure = Figure(figsize=(12, 8.6), dpi=100, layout="constrained")
    axes = figure.subplot_mosaic("ab;cc", height_ratios=(3, 1))
    for name, title in (("a", "as its JPEG shows it"), ("b", "with its truth")):
        axes[name].imshow(shown, cmap="gray", extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        axes[name].set(title=f"Simulated micrograph, {title}", xticks=[], yticks=[])
    paint = {name: tuple(level / 255 for level in rgb) for name, rgb in COLOURS.items()}
    for y, x in image.centres_px:
        listed = margin_px <= min(y, x, height - 1 - y, width - 1 - x)
        colour = paint["listed" if listed else "margin"]
        axes["b"].add_patch(Circle((x, y), image.diameter_px / 2, fill=False, lw=1.3, color=colour))

    frequency, power = radial_power(image.raw, plan.pixel_size_angstrom)
    counted = frequency > 0.01  # below, ice and film outshine everything
    axes["c"].semilogy(frequency[counted], power[counted], color="black", lw=1)
    for zero in ctf_zeros(plan.optics, N_ZEROS):
        axes["c"].axvline(zero, color=paint["zeros"], ls=":", lw=1.2)
    axes["c"].set(
        title=f"Power of the raw counts; dotted: zeros of the CTF by theory "
        f"({plan.defocus_angstrom / 1e4:.2f} µm underfocus)",
        xlabel="spatial frequency (1/Å)",
        ylabel="power",
        xlim=(0.01, 0.15),
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    # Noise hardly compresses, so few greys keep the file small.
    greys = [level for grey in range(0, 256, 5) for level in (grey, grey, grey)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(greys + [level for colour in COLOURS.values() for level in colour])
    few = Image.open(buffer).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    write_saved(path, lambda file: few.save(file, "PNG", optimize=True))
