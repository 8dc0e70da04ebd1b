"""The scripts' own way from the command line to the end, with one input of theirs spoilt."""

import pytest
from hypothesis import strategies as st

from tests.fixtures import active_runs, pu_runs
from tests.fixtures.data_sets import write_csv

from . import originals, scripts
from .mutators import damaged_bytes, damaged_json, damaged_text
from .oracle import ENDS, outcome, run_cases, short
from .scripts import whole_outcome
from .test_fuzz_checkpoints import damaged_checkpoint
from .test_fuzz_stores import spoil_array


def spoil(draw, path):
    """Damage a file as its ending suggests."""
    if path.suffix == ".json":
        path.write_bytes(draw(damaged_json(path.read_bytes())))
    elif path.suffix == ".npy":
        spoil_array(draw, path)
    elif path.suffix == ".pt":
        path.write_bytes(draw(damaged_checkpoint(path)))
    elif path.suffix in (".yaml", ".jsonl", ".csv", ".star", ".box"):
        path.write_bytes(draw(damaged_text(path.read_text())))
    else:
        path.write_bytes(draw(damaged_bytes(path.read_bytes(), hot=700)))


def spoil_one(draw, folder, *patterns):
    """Damage one of the files that match; return the names that an error may use for it."""
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    path = draw(st.sampled_from(paths))
    spoil(draw, path)
    return [path.name, path.stem, str(path.parent)]


def preprocess(draw, folder):
    root = originals.copy(originals.data_set(), folder / "data")
    names = spoil_one(draw, root, "annotations/*", "particle_coordinates/test*", "*/*.jpg")
    tasks = draw(st.sampled_from((("patches",), ("segmentation",), ("patches", "segmentation"))))
    flags = ["--skip-unreadable"] if draw(st.booleans()) else []
    call = lambda: scripts.preprocess(root, folder / "out", "--tasks", *tasks, *flags)  # noqa: E731
    return whole_outcome(call, [*names, "split"], folder, "metadata.json")


def preprocess_picks(draw, folder):
    root = originals.copy(originals.data_set(), folder / "data")
    for stem in ("val_00", "val_01"):
        write_csv(root / f"{stem}.csv", [(60, 60), (200, 200)])
    names = spoil_one(draw, root, "*.csv", "val/*.jpg")
    call = lambda: scripts.preprocess_picks(  # noqa: E731
        [root / "val" / "*.jpg"], [root / "*.csv"], folder / "out", "--frame", "jpeg"
    )
    return whole_outcome(call, [*names, "picks"], folder, "metadata.json")


def train(draw, folder):
    windows = draw(st.booleans())
    arguments = originals.pu_arguments(windows)
    store = originals.copy(arguments.pop("store"), folder / "store")
    names = spoil_one(draw, store, "metadata.json", "*/*.npy", "*/*.npz")
    call = lambda: pu_runs.train(  # noqa: E731
        store, folder / "runs", overrides=[*arguments.pop("overrides", ()), "training.epochs=1"]
    )
    return whole_outcome(call, [*names, "data set", str(store)], folder, "results.json")


def resume_training(draw, folder):
    windows = draw(st.booleans())
    runs = originals.copy(originals.pu_runs(windows), folder / "runs")
    names = spoil_one(
        draw, runs / "run", "checkpoints/*.pt", "run.json", "config.yaml", "metrics.jsonl"
    )
    arguments = originals.pu_arguments(windows)
    call = lambda: pu_runs.train(  # noqa: E731
        arguments["store"], runs, "--resume", overrides=arguments.get("overrides", ())
    )
    return whole_outcome(call, [*names, "step"], folder, "results.json")


def evaluate_checkpoint(draw, folder):
    path = folder / "best_model.pt"
    path.write_bytes(draw(damaged_checkpoint(originals.best_pu_model())))
    call = lambda: pu_runs.evaluate(  # noqa: E731
        path, originals.window_store(), folder / "results.json", "--split", "val"
    )
    return whole_outcome(call, [path.name, "model", "input_size_px"], folder, "results.json")


def learn_actively(draw, folder):
    store = originals.copy(originals.segmentation_store(), folder / "store")
    names = spoil_one(draw, store, "*/index.json", "*/*.npy")
    argv = active_runs.arguments(store, folder / "runs", overrides=["active_learning.iterations=1"])
    call = lambda: scripts.learn_actively(*argv, "--epochs", 1)  # noqa: E731
    return whole_outcome(call, [*names, str(store)], folder / "runs", "metrics.json")


def resume_learning_actively(draw, folder):
    runs = originals.copy(originals.active_runs(), folder / "runs")
    names = spoil_one(
        draw, runs / "uncertainty", "last.pt", "iteration_[12]/*.pt", "iteration_2/*.json",
        "iteration_1/*.json", "run.json", "config.*", "metrics.jsonl",
    )  # fmt: skip
    argv = active_runs.arguments(originals.segmentation_store(), runs, "--resume")
    call = lambda: scripts.learn_actively(*argv)  # noqa: E731
    return whole_outcome(call, names, runs / "uncertainty", "iteration_2/metrics.json")


def pick_with_checkpoint(draw, folder):
    original = draw(st.sampled_from((originals.best_model, originals.best_pu_model)))
    path = folder / "best_model.pt"
    path.write_bytes(draw(damaged_checkpoint(original())))
    call = lambda: scripts.pick(path, folder / "picks", "--formats", "star", "csv")  # noqa: E731
    return whole_outcome(call, [path.name, "scores of"], folder, "summary.csv")


def pick_micrographs(draw, folder):
    micrographs = originals.copy(originals.data_set() / "val", folder / "val")
    names = spoil_one(draw, micrographs, "*.jpg")
    flags = draw(st.sets(st.sampled_from(("--overlay", "--heatmap", "--one-file"))))
    call = lambda: scripts.pick(  # noqa: E731
        originals.best_model(), folder / "picks", *sorted(flags), micrographs=[micrographs / "*"]
    )
    return whole_outcome(call, names, folder, "summary.csv")


def resume_picking(draw, folder):
    output = originals.copy(originals.picked(), folder / "picks")
    (output / "summary.csv").unlink()
    names = spoil_one(draw, output, "manifest.json", "scored/*.npz")
    call = lambda: scripts.pick(originals.best_model(), output, "--resume")  # noqa: E731
    return whole_outcome(call, [*names, "picks"], folder, "summary.csv")


def evaluate_picks(draw, folder):
    data = originals.copy(originals.data_set(), folder / "data")
    truth = data / "annotations" / "instances_val.json"
    picks = originals.copy(originals.picked() / "star", folder / "star")
    spoilt = draw(st.sampled_from((truth, *sorted(picks.iterdir()))))
    spoil(draw, spoilt)
    flags = ["--output", folder / "out"] if draw(st.booleans()) else []
    call = lambda: scripts.evaluate(truth, picks / "*", *flags)  # noqa: E731
    names = [spoilt.name, "val_0", "truth", "picks"]
    return whole_outcome(call, names, folder, "evaluation.json")


def configs(draw, folder):
    """The config of either training script, through its main."""
    path = folder / "tiny.yaml"
    if draw(st.booleans()):
        argv = active_runs.arguments(originals.segmentation_store(), folder, "--epochs", 1)
        call = lambda: scripts.learn_actively(  # noqa: E731
            *argv, "--set", "active_learning.iterations=1"
        )
    else:
        argv = pu_runs.arguments(originals.patch_store(), folder)
        call = lambda: pu_runs.call(*argv, "--set", "training.max_steps=2")  # noqa: E731
    path.write_bytes(draw(damaged_text(path.read_text())))
    return outcome(call, [path.name, "size", "input_size_px", "depth", "optimizer"])


def analyze(draw, folder):
    root = originals.copy(originals.learning_runs(), folder / "runs")
    names = spoil_one(draw, root, "*/*.json", "*/*/*.json")
    call = lambda: scripts.analyze(root, folder / "out")  # noqa: E731
    return whole_outcome(call, [*names, "runs"], folder, "comparison_summary.json")


CASES = {
    preprocess: 25, preprocess_picks: 15, train: 20, resume_training: 30, evaluate_checkpoint: 15,
    learn_actively: 15, resume_learning_actively: 30, pick_with_checkpoint: 15,
    pick_micrographs: 15, resume_picking: 15, evaluate_picks: 20, configs: 15, analyze: 5,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_scripts_end_well_or_in_one_sentence_with_one_input_spoilt(case):
    assert set() < run_cases(case, short(CASES[case])) <= ENDS
