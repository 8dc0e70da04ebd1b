"""The scripts' mains, called here with tiny inputs, and what must hold of what they leave."""

import analyze_active_learning_results
import pick_particles
import preprocess_coco_full_dataset
import train_active_learning_fixed

from . import originals
from .oracle import REFUSAL, call_main, outcome


def preprocess(root, output, *flags):
    return call_main(
        preprocess_coco_full_dataset.main, "--data-root", root, "--output-dir", output / "patches",
        "--seg-output-dir", output / "images", "--patch-size", 32, "--seg-size", 32,
        "--num-workers", 0, *flags,
    )  # fmt: skip


def preprocess_picks(micrographs, labels, output, *flags):
    return call_main(
        preprocess_coco_full_dataset.main, "--micrographs", *micrographs, "--labels", *labels,
        "--diameter", "20px", "--windows-per-micrograph", 5, "--patch-size", 32,
        "--output-dir", output, "--num-workers", 0, *flags,
    )  # fmt: skip


def learn_actively(*argv):
    return call_main(train_active_learning_fixed.main, *argv)


def pick(checkpoint, output, *flags, micrographs=None):
    """Pick the validation micrographs, or others."""
    patterns = micrographs or [originals.data_set() / "val" / "*.jpg"]
    return call_main(
        pick_particles.main, "--checkpoint", checkpoint, "--micrographs", *patterns,
        "--diameter", "20px", "--device", "cpu", "--output", output, *flags,
    )  # fmt: skip


def evaluate(truth, picks, *flags):
    return call_main(pick_particles.main, "--evaluate", truth, "--picks", picks, *flags)


def analyze(root, output):
    return call_main(
        analyze_active_learning_results.main, "--experiments-dir", root, "--output-dir", output
    )


def whole_outcome(call, names, folder, last):
    """The outcome; nothing half written may be left, and after a refusal not what says "done".

    last: pattern of the files that a script writes last of all.
    """
    before = set(folder.rglob(last))
    result = outcome(call, names)
    assert not list(folder.rglob("*.tmp"))
    if result == REFUSAL:
        assert set(folder.rglob(last)) <= before
    return result
