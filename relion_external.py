#!/usr/bin/env python3
r"""Pick particles as a job inside RELION: an External job of RELION 3.1, 4 or 5.

RELION calls it in the project's folder, with what its External tab holds:

    relion_external.py --o External/job005/ --in_mics CtfFind/job003/micrographs_ctf.star \
        --checkpoint /models/best_model.pt --diameter 150A --j 8            # a trained network
    relion_external.py --o External/job005/ --in_mics CtfFind/job003/micrographs_ctf.star \
        --in_coords ManualPick/job004/manualpick.star --diameter 150A \
        --expected_particles 300 --j 8                  # one that learns from picks in this job

docs/picking_guide.md says what to fill in. In the job's folder: picks/ of pick_particles.py, with
the coordinates for RELION; logfile.pdf; after learning windows/ and training/, the network too.
Continuing the job goes on where it stopped, and picks micrographs that have come since.

RELION calls it by its path with any Python: it starts again with $PYTHON, else with .venv beside
it, else goes on with that Python. So this file must be read by old ones too.
"""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
STARTED = "PICKING_RELION_EXTERNAL_STARTED"  # in the environment of the second start
NEEDED = ("matplotlib", "mrcfile", "numpy", "scipy", "starfile", "torch")


def use_own_environment():
    """Start again with the Python of this project, without other programs' packages."""
    if not os.environ.pop(STARTED, ""):
        own = ROOT / ".venv" / "bin" / "python"
        python = os.environ.get("PYTHON") or (str(own) if own.exists() else sys.executable)
        of_others = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP")
        kept = {name: value for name, value in os.environ.items() if name not in of_others}
        kept[STARTED] = "yes"
        try:
            os.execvpe(python, [python, "-u", __file__] + sys.argv[1:], kept)  # noqa: RUF005
        except OSError as error:
            fail(f"PYTHON={python} does not run ({error}): give the full path of a Python")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if sys.version_info < (3, 10) or missing:
        lacks = (
            "is older than 3.10" if sys.version_info < (3, 10) else "lacks " + ", ".join(missing)
        )
        fail(
            f"the Python {sys.executable} {lacks}: set PYTHON to one that has what {ROOT}/"
            "requirements.txt lists, or make .venv there with ./run_tests.sh"
        )


def fail(sentence):
    """End before anything is read, so that RELION does not wait for the job."""
    print(f"error: {sentence}", file=sys.stderr)
    flag = argparse.ArgumentParser(add_help=False)
    flag.add_argument("--o", type=Path)
    job = flag.parse_known_args()[0].o
    if job is not None and job.is_dir():
        (job / "RELION_JOB_EXIT_FAILURE").touch()
    sys.exit(2)


if __name__ == "__main__":
    use_own_environment()

from picking.detection import output  # noqa: E402
from picking.errors import Stopped, UserError, run_script, warn  # noqa: E402
from picking.files import locked, read_json, write_json  # noqa: E402
from picking.formats.picks import with_whole_box  # noqa: E402
from picking.inputs.micrograph_lists import given_micrographs  # noqa: E402
from picking.micrographs.reading import image_size  # noqa: E402
from picking.relion_job import arguments, control, pipeline  # noqa: E402
from picking.relion_job.logfile import write_logfile  # noqa: E402


def main():
    """Hold the job's folder, do the job, and leave the file that says how it ended."""
    if {"-h", "--help"} & {*sys.argv}:
        arguments.parse_args(["--help"], __doc__)
    job = arguments.job_folder(sys.argv[1:])
    with locked(job):  # of a job that runs already nothing is touched
        control.begin(job)
        try:
            do_job(arguments.parse_args(sys.argv[1:], __doc__), job)
        except Stopped:
            control.end(job, control.ABORTED)
            raise
        except BaseException:
            control.end(job, control.FAILURE)
            raise
        control.end(job, control.SUCCESS)


def do_job(args: argparse.Namespace, job: Path) -> None:
    """Learn where it is asked for, pick, choose the threshold, and tell RELION what there is."""
    version = args.relion_version or pipeline.relion_version(job)
    print(f"Picking as {job} of RELION {version}")
    require_as_begun(args, job)
    picks = job / "picks"

    # 1. A network that learns from picks
    checkpoint = args.checkpoint
    if checkpoint is None:
        checkpoint = learn(args, job)

    # 2. Picks
    pick(args, job, checkpoint)

    # 3. What RELION shows and what its next jobs take
    micrographs, _ = given_micrographs([str(args.in_mics)], args.allow_partial)
    names = output.counts_in_summary(picks / "summary.csv")  # without those that were left out
    every = [output.load_picks(picks, name, image_size(micrographs[name])) for name in names]
    candidates = [with_whole_box(one, args.box) if args.box else one for one in every]
    used = float(read_json(picks / "manifest.json")["threshold"])
    write_logfile(job / "logfile.pdf", candidates, used, micrographs)
    pipeline.write_nodes(job, version, picks)


def require_as_begun(args: argparse.Namespace, job: Path) -> None:
    """Raise `UserError` where what learning follows from differs from what the job began with."""
    path, asked = job / "settings.json", arguments.deciding(args)
    # A job that ended with a mistake in these has nothing yet that follows from them
    begun = any((job / stage).exists() for stage in ("windows", "training", "picks"))
    if not begun or not path.exists():
        write_json(path, asked)
        return
    began = read_json(path)
    differing = [name for name in asked if asked[name] != began.get(name)]
    if differing:
        before = " and ".join(arguments.as_typed(name, began.get(name)) for name in differing)
        raise UserError(
            f"{job} was begun with another {', '.join(differing)}: continue it {before}, or start "
            "a new job"
        )


def learn(args: argparse.Namespace, job: Path) -> Path:
    """Train a network on the picks, or go on with it; return its checkpoint."""
    if not (job / "windows" / "metadata.json").exists():
        print("Learning, 1 of 2: windows about the picks and anywhere")
        call(
            args, job, "preprocess_coco_full_dataset.py",
            "--micrographs", args.in_mics, "--labels", *args.labels,
            "--output-dir", job / "windows", "--num-workers", args.j,
            *arguments.flags(
                args, "diameter", "pixel_size", "expected_particles", "frame", "junk",
                "allow_partial",
            ),
        )  # fmt: skip
    if not (job / "training" / "results.json").exists():
        print("Learning, 2 of 2: training")
        call(
            args, job, "train_pu_fixed_full.py", "--config", args.config,
            "--experiments-dir", job, "--exp-name", "training", "--data-dir", job / "windows",
            "--resume", *arguments.flags(args, "device"),
        )  # fmt: skip
    return job / "training" / "checkpoints" / "best_model.pt"


def pick(args: argparse.Namespace, job: Path, checkpoint: Path) -> None:
    """Pick all micrographs that are not picked yet, or remake the files for another threshold."""
    number = () if args.threshold != "auto" else ("expected_particles",)
    call(
        args, job, "pick_particles.py", "--checkpoint", checkpoint, "--micrographs", args.in_mics,
        "--output", job / "picks", "--resume", "--threshold", args.threshold,
        *arguments.flags(
            args, "diameter", "pixel_size", "box", "device", "invert", "keep_junk", "junk",
            "strict", "allow_partial", *number,
        ),
    )  # fmt: skip


def call(args: argparse.Namespace, job: Path, script: str, *flags: object) -> None:
    """Run a script of this project; raises `UserError` where it fails, with what it said."""
    control.raise_if_asked(job)
    command = [sys.executable, str(ROOT / script), *map(str, flags)]
    status = control.run(command, job, args.j)
    if status == 3:
        warn(f"micrographs were left out: {job}/picks/summary.csv says which and why")
    elif status != 0:
        raise UserError(f"{script} ended with status {status}: run.err says why")


if __name__ == "__main__":
    run_script(main)
