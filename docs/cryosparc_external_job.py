r"""An example: pick the micrographs of a cryoSPARC job, and save the picks as an External job.

    pip install cryosparc-tools~=4.7.0      # the version of your cryoSPARC
    python -m cryosparc.tools login
    python docs/cryosparc_external_job.py --url http://localhost:39000 --project P3 \
        --workspace W1 --exposures J12 exposures --work /scratch/J12_picks \
        --checkpoint experiments/run/checkpoints/best_model.pt --diameter 150A --pixel-size 1.77

Written after the documentation of cryosparc-tools 5.0 and checked against its functions, but never
run with a live cryoSPARC: try it on a small project first. It must see the project's folder. The
picks become the output `picks` of the job, for Inspect Picks and Extract from Micrographs. Other
arguments go to pick_particles.py.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from picking.errors import UserError, run_script  # noqa: E402
from picking.formats.coordinates import read_picks  # noqa: E402
from picking.formats.cryosparc.exposures import Exposure, exposures_of  # noqa: E402
from picking.formats.cryosparc.writing import particles_table  # noqa: E402
from picking.formats.picks import flip_y  # noqa: E402


def main() -> None:
    """Connect, pick, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--url", help="of cryoSPARC, as in the browser; default: $CRYOSPARC_BASE_URL")
    add("--project", required=True, metavar="P3")
    add("--workspace", required=True, metavar="W1")
    add("--exposures", required=True, nargs=2, metavar=("J12", "OUTPUT"), help="what to pick")
    add("--work", required=True, type=Path, help="a new folder, for links and picks")
    args, others = parser.parse_known_args()
    try:
        from cryosparc.tools import CryoSPARC
    except ImportError as error:
        raise UserError("cryosparc-tools is not installed: pip install cryosparc-tools") from error
    project = CryoSPARC(*filter(None, [args.url])).find_project(args.project)
    run_job(project, args.workspace, args.exposures, args.work, others)


def run_job(
    project: Any, workspace: str, source: Sequence[str], work: Path, picker_flags: Sequence[str]
) -> None:
    """Make the job, connect ``source``, a job and its output, pick, and save what was picked."""
    job = project.create_external_job(workspace, title="Picks of a trained network")
    job.add_input("exposure", "micrographs", min=1, slots=["micrograph_blob"], title="Micrographs")
    job.connect("micrographs", *source)
    job.add_output("particle", "picks", slots=["location", "pick_stats"], title="Picks")
    with job.run():  # what fails within marks the job as failed
        listed = exposures_of(job.load_input("micrographs", ["micrograph_blob"]), Path(source[0]))
        exposures = link_micrographs(listed, Path(project.dir), work / "micrographs")
        job.log(f"Picking {len(exposures):,} micrographs into {work}")
        pick(work, picker_flags)
        table = locations(work / "picks", exposures)
        particles = job.alloc_output("picks", table["uid"])
        fill(particles, table)
        job.save_output("picks", particles)
        job.log(f"Saved {len(table):,} picks")


def link_micrographs(
    listed: Sequence[Exposure], project_folder: Path, folder: Path
) -> dict[str, Exposure]:
    """Make a folder of links to these micrographs alone; return them by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    for link in folder.iterdir():  # of an earlier call
        if link.is_symlink():
            link.unlink()
    by_name: dict[str, Exposure] = {}
    for exposure in listed:
        name = PurePosixPath(exposure.path).name
        if name in by_name:
            raise UserError(f"two micrographs are called {name}: pick them in two jobs")
        target = project_folder / exposure.path
        if not target.is_file():
            raise UserError(f"{target} is not there: run this where the project's folder is seen")
        (folder / name).symlink_to(target)
        by_name[name] = exposure
    return by_name


def pick(work: Path, flags: Sequence[str]) -> None:
    """Run pick_particles.py on the links; the same command goes on where it was stopped."""
    command = [
        sys.executable, str(ROOT / "pick_particles.py"), "--micrographs",
        str(work / "micrographs" / "*"), "--output", str(work / "picks"), "--formats", "cs",
        "--resume", *flags,
    ]  # fmt: skip
    status = subprocess.run(command).returncode
    if status not in (0, 3):  # 3: some micrographs were left out, as it said
        raise UserError(f"picking ended with status {status}: see what it said above")


def locations(picked: Path, exposures: Mapping[str, Exposure]) -> np.ndarray:
    """Return the picks as rows of a .cs, with uids, paths and pixel sizes as cryoSPARC has them."""
    sizes_px = {name: exposure.size_px for name, exposure in exposures.items()}
    picks = read_picks([picked / "particles.cs"], sizes_px)
    return particles_table([flip_y(one) for one in picks], exposures)


def fill(particles: Any, table: np.ndarray) -> None:
    """Copy the columns of ``table`` that the allocated Dataset has; texts as texts."""
    for name in table.dtype.names or ():
        if name in particles and name != "uid":
            values = table[name]
            particles[name] = (
                np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
            )


if __name__ == "__main__":
    run_script(main)
