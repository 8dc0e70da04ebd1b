"""The truth as RELION (3.1 and later) takes it: a list of micrographs with CTF, and particles.

`truth/micrographs_ctf.star` and `truth/particles.star`, to be used in the data set's folder, since
names are relative to it: `relion_preprocess --i truth/micrographs_ctf.star
--reextract_data_star truth/particles.star ...` cuts every particle and keeps its angles, which
`relion_reconstruct` then needs no search for.

RELION cuts a box about the pixel that a coordinate falls into: the whole part of x is the pixel's
index. So the centre of the first pixel is at 0.5; the CSVs, which count as NumPy does, have 0.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from picking.seeds import stream
from picking.simulation.proteins import PROTEINS

if TYPE_CHECKING:
    import pandas as pd

    from picking.simulation.plans import MicrographPlan


def write_relion_truth(output: Path, plans: Sequence["MicrographPlan"]) -> None:
    """Write both lists of a data set whose MRCs and truth/*.csv are there."""
    import pandas as pd

    optics = plans[0].optics
    group = pd.DataFrame(
        {
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnOpticsGroup": 1,
            "rlnMicrographPixelSize": optics.pixel_size_angstrom,
            "rlnVoltage": optics.voltage_kv,
            "rlnSphericalAberration": optics.cs_mm,
            "rlnAmplitudeContrast": optics.amplitude_contrast,
        }
    )
    # Without a box RELION (3.1.3) refuses particles that have a defocus; it then cuts its own
    diameter_px = max(p.protein.diameter_angstrom for p in plans) / optics.pixel_size_angstrom
    box = {
        "rlnImagePixelSize": optics.pixel_size_angstrom,
        "rlnImageSize": 2 * math.ceil(0.75 * diameter_px),
        "rlnImageDimensionality": 2,
    }
    micrographs = pd.concat([_ctf(plan) for plan in plans])
    particles = pd.concat([_particles(output, plan) for plan in plans])
    for file, blocks in {
        "micrographs_ctf.star": {"optics": group, "micrographs": micrographs},
        "particles.star": {"optics": group.assign(**box), "particles": particles},
    }.items():
        (output / "truth" / file).write_text(_star_text(blocks))


def _ctf(plan: "MicrographPlan") -> "pd.DataFrame":
    """Return the row of a micrograph."""
    import pandas as pd

    columns = {
        "rlnMicrographName": f"mrc/{plan.stem}.mrc",
        "rlnOpticsGroup": 1,
        "rlnDefocusU": plan.defocus_angstrom,
        "rlnDefocusV": plan.defocus_angstrom,
        "rlnDefocusAngle": 0.0,  # no astigmatism
    }
    return pd.DataFrame(columns, index=[0])


def _particles(output: Path, plan: "MicrographPlan") -> "pd.DataFrame":
    """Return the rows of a micrograph's particles, a random half of them in either subset."""
    import pandas as pd

    truth = pd.read_csv(output / "truth" / f"{plan.stem}.csv")
    table = _ctf(plan).loc[[0] * len(truth)].reset_index(drop=True)
    halves = stream(plan.seed, "halves", plan.stem).permutation(len(truth)) % 2
    return table.assign(
        rlnCoordinateX=truth["X-Coordinate"] + 0.5,
        rlnCoordinateY=plan.size_px[0] - (truth["Y-Coordinate"] + 0.5),  # in the MRC's frame
        rlnAngleRot=truth["Angle-Rot"],
        rlnAngleTilt=truth["Angle-Tilt"],
        rlnAnglePsi=truth["Angle-Psi"],
        rlnOriginXAngst=0.0,
        rlnOriginYAngst=0.0,
        rlnClassNumber=PROTEINS.index(plan.protein) + 1,
        rlnRandomSubset=halves + 1,
    )


def _star_text(blocks: dict[str, "pd.DataFrame"]) -> str:
    """Return a STAR file without its first line, the time, by which two runs would differ."""
    import starfile

    _, _, text = starfile.to_string(blocks).partition("\n")
    return text
