import contextlib
import io
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pick_particles as script
from picking.config import (
    ActiveConfig,
    DataConfig,
    PUConfig,
    SegmentationModelConfig,
    plain,
)
from picking.errors import UserError
from picking.files import locked
from picking.formats.coordinates import read_picks
from picking.formats.micrographs import write_mrc
from picking.runs.checkpoints import load_checkpoint, save_checkpoint
from picking.training import networks
from tests.fixtures.data_sets import DIAMETER_PX, picture, some_centres, write_coco
from tests.fixtures.data_sets import boxes as boxes_of

SIZE_PX = (320, 384)
NAMES = ("a.jpg", "b.jpg", "c.jpg")


class Dark(nn.Module):
    """A network that knows: particles are dark disks. A U-Net, or a classifier of 32 px."""

    def __init__(self, *backbone, width=1, depth=1):
        super().__init__()
        self.width = nn.Parameter(torch.tensor(5.0))
        self.is_classifier = bool(backbone)

    def forward(self, x):
        x = nn.functional.avg_pool2d(nn.functional.pad(x, [2] * 4, mode="reflect"), 5, 1)
        z = -self.width * (x + 1)[:, 0]
        return z[:, 12:20, 12:20].mean((1, 2)) if self.is_classifier else z.unsqueeze(1)


@pytest.fixture(autouse=True)
def networks_that_know(monkeypatch):
    monkeypatch.setattr(networks, "UNETS", {"unet": Dark})
    monkeypatch.setattr(networks, "PUClassifier", Dark)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of micrographs with their truth in truth.json, and where the particles are."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    centres = {name: some_centres(rng, 12, SIZE_PX) for name in NAMES}
    for name in NAMES:
        Image.fromarray(picture(rng, centres[name], SIZE_PX)).save(folder / name, quality=95)
    write_coco(folder / "truth.json", {n: boxes_of(c) for n, c in centres.items()}, SIZE_PX)
    return folder, centres


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "best_model.pt")


def write_checkpoint(path, **changes):
    config = ActiveConfig(model=SegmentationModelConfig("unet", 1, 1))
    content = {
        "kind": "segmentation",
        "config": plain(config),
        "input": {"side_px": 96, "tiles": 2, "resize": "stretch", "disk": 1.0},
        "network": Dark().state_dict(),
        "threshold": 0.4,
    }
    content |= changes
    save_checkpoint(path, {k: v for k, v in content.items() if v is not None})
    return path


def call(*argv):
    """Run the script here; return what it printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", ["pick_particles.py", *map(str, argv)])
        script.main()
    return printed.getvalue()


def pick(checkpoint, data, output, *flags):
    return call(
        "--checkpoint", checkpoint, "--micrographs", data[0] / "*.jpg", "--output", output,
        "--diameter", f"{DIAMETER_PX}px", "--device", "cpu", *flags,
    )  # fmt: skip


def refused(*argv):
    """Return the one sentence that the command is refused with."""
    with pytest.raises(UserError) as error:
        call(*argv)
    assert "\n" not in str(error.value)
    return str(error.value)


def files_of(folder):
    """Path -> bytes of all files that the script leaves, without the lock."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_found(picks, centres, within_px=4):
    assert {p.name for p in picks} == set(centres)
    for p in picks:
        distance = np.hypot(*(centres[p.name][:, None] - p.centres_px).transpose(2, 0, 1))
        assert (distance.min(axis=1) < within_px).mean() > 0.9, p.name
        assert len(p.centres_px) < 1.3 * len(centres[p.name])


# Picking


def test_picks_are_where_the_particles_are_in_every_format(checkpoint, data, tmp_path):
    printed = pick(
        checkpoint, data, tmp_path / "out", "--formats", "star", "box", "cbox", "csv", "coco"
    )
    sizes = dict.fromkeys(NAMES, SIZE_PX)
    for name, suffix in script.FORMATS.items():
        picks = read_picks(sorted((tmp_path / "out" / name).glob(f"*{suffix}")), sizes)
        assert_found(picks, data[1])
    assert "3/3 c.jpg" in printed
    assert "Threshold 0.4000 (the checkpoint's, of training" in printed


def test_one_file_holds_all_micrographs(checkpoint, data, tmp_path):
    pick(checkpoint, data, tmp_path / "out", "--one-file", "--formats", "star", "csv")
    sizes = dict.fromkeys(NAMES, SIZE_PX)
    for name in ("picks.star", "picks.csv"):
        assert_found(read_picks([tmp_path / "out" / name], sizes), data[1])
    assert not (tmp_path / "out" / "star").exists()


def test_a_classifier_picks_too(data, tmp_path):
    path = write_checkpoint(
        tmp_path / "best_model.pt",
        kind="pu_classifier",
        config=plain(PUConfig(data=DataConfig(input_size_px=32))),
        input={"patch_size_px": 32, "diameter_px": DIAMETER_PX},
    )
    printed = call(
        "--checkpoint", path, "--micrographs", data[0] / "*.jpg", "--output", tmp_path / "out"
    )
    assert f"diameter {DIAMETER_PX} px" in printed
    picks = read_picks(sorted((tmp_path / "out/star").iterdir()), dict.fromkeys(NAMES, SIZE_PX))
    assert_found(picks, data[1])


def test_an_mrc_gives_the_picks_of_its_jpeg_in_the_frame_of_the_mrc(checkpoint, data, tmp_path):
    centres = {"a.mrc": data[1]["a.jpg"]}
    raw = np.asarray(Image.open(data[0] / "a.jpg")).astype(float) * 7 - 300
    write_mrc(tmp_path / "a.mrc", raw, 1.5)
    call(
        "--checkpoint", checkpoint, "--micrographs", tmp_path / "a.mrc", "--output",
        tmp_path / "out", "--diameter", f"{DIAMETER_PX * 1.5}A", "--pixel-size", 1.5,
    )  # fmt: skip
    star = tmp_path / "out/star/a.star"
    assert_found(read_picks([star], {"a.mrc": SIZE_PX}), centres, within_px=6)
    upside_down = {"a.mrc": np.abs(data[1]["a.jpg"] - (SIZE_PX[0], 0))}
    assert_found(read_picks([star], {"a.mrc": SIZE_PX}, frame="jpeg"), upside_down, within_px=6)


def test_a_higher_threshold_leaves_fewer_picks_and_the_table_counts_them(
    checkpoint, data, tmp_path
):
    write_checkpoint(checkpoint, network={"width": torch.tensor(0.8)})  # not sure of anything
    counts = []
    for threshold in (0.2, 0.65):
        output = tmp_path / str(threshold)
        printed = pick(checkpoint, data, output, "--threshold", threshold, "--one-file")
        assert f"Threshold {threshold:.4f} (--threshold)" in printed
        picks = read_picks([output / "picks.star"], dict.fromkeys(NAMES, SIZE_PX))
        assert min(p.scores.min() for p in picks) >= threshold - 1e-6
        counts.append(sum(len(p.scores) for p in picks))
        table = (output / "thresholds.csv").read_text().splitlines()
        row = next(line for line in table if line.startswith(f"{threshold},"))
        assert int(row.split(",")[1]) == counts[-1]
        summary = (output / "summary.csv").read_text().splitlines()[1:]
        assert sum(int(line.split(",")[1]) for line in summary) == counts[-1]
    assert counts[0] > counts[1] > 0


def test_pictures_are_made_when_asked_for(checkpoint, data, tmp_path):
    pick(checkpoint, data, tmp_path / "plain")
    assert not list((tmp_path / "plain").rglob("*.png"))
    pick(checkpoint, data, tmp_path / "out", "--overlay", "--heatmap")
    assert Image.open(tmp_path / "out/heatmaps/a.jpg.png").size == (192, 192)
    overlay = np.asarray(Image.open(tmp_path / "out/overlays/a.jpg.png")).astype(int)
    assert (np.ptp(overlay, axis=2) > 60).sum() > 500  # coloured circles on grey


# Going on


def test_a_resumed_run_ends_as_if_never_stopped(checkpoint, data, tmp_path, monkeypatch):
    flags = ("--formats", "star", "coco", "--overlay", "--heatmap")
    pick(checkpoint, data, tmp_path / "whole", *flags)
    find, found = script.pick, []

    def stopping(picker, path, diameter_px):
        if len(found) == 2:
            raise KeyboardInterrupt
        found.append(path.name)
        return find(picker, path, diameter_px)

    with monkeypatch.context() as patch:
        patch.setattr(script, "pick", stopping)
        with pytest.raises(KeyboardInterrupt):
            pick(checkpoint, data, tmp_path / "out", *flags)
    (tmp_path / "out/star/.c.star.99.tmp").write_text("half")
    printed = pick(checkpoint, data, tmp_path / "out", *flags, "--resume")
    assert "2 of 3 micrographs are done already" in printed
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_micrographs_that_came_later_are_added(checkpoint, data, tmp_path):
    flags = (
        "--output",
        tmp_path / "out",
        "--diameter",
        "20px",
        "--one-file",
        "--checkpoint",
        checkpoint,
    )
    call("--micrographs", data[0] / "a.jpg", *flags)
    printed = call("--micrographs", data[0] / "*.jpg", *flags, "--resume")
    assert "1 of 3 micrographs are done already" in printed
    assert_found(read_picks([tmp_path / "out/picks.star"], dict.fromkeys(NAMES, SIZE_PX)), data[1])


def test_a_folder_that_is_not_empty_is_left_alone(checkpoint, data, tmp_path):
    arguments = (
        "--checkpoint", checkpoint, "--micrographs", data[0] / "*.jpg", "--output",
        tmp_path / "out", "--diameter", "20px",
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    for flag in ((), ("--resume",)):
        message = refused(*arguments, *flag)
        assert "not empty (it holds thesis.txt): choose another folder" in message
    (tmp_path / "out/thesis.txt").unlink()
    call(*arguments)
    before = files_of(tmp_path / "out")
    assert "--resume" in refused(*arguments)
    assert "begun with another threshold" in refused(*arguments, "--resume", "--threshold", 0.7)
    message = refused(*arguments, "--resume", "--formats", "box", "--heatmap")
    assert "begun with another formats, heatmap" in message
    write_checkpoint(checkpoint, epoch=7)
    assert "begun with another checkpoint" in refused(*arguments, "--resume")
    assert files_of(tmp_path / "out") == before


def test_a_run_that_was_killed_amid_its_first_file_can_be_gone_on_with(checkpoint, data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.manifest.json.99.tmp").write_text("half")
    pick(checkpoint, data, tmp_path / "out", "--resume")
    pick(checkpoint, data, tmp_path / "whole")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_two_processes_do_not_pick_into_one_folder(checkpoint, data, tmp_path, monkeypatch):
    monkeypatch.setattr("picking.files.LOCK_PATIENCE_S", 0.0)
    with locked(tmp_path / "out"), pytest.raises(UserError, match="is in use by process"):
        pick(checkpoint, data, tmp_path / "out")


# Against the truth


def test_evaluating_says_how_good_the_picks_are(checkpoint, data, tmp_path):
    out = tmp_path / "out"
    printed = pick(checkpoint, data, out, "--evaluate", data[0] / "truth.json", "--overlay")
    report = json.loads((out / "evaluation.json").read_text())
    assert report["n_micrographs"] == 3 and report["n_truth"] == 36
    assert report["f1"] > 0.85 and report["threshold"] == 0.4
    nearest = min(min(c.min(), (np.array(SIZE_PX) - c).min()) for c in data[1].values())
    assert report["margin_px"] == int(nearest)
    assert f"f1         {report['f1']:.3f}" in printed
    assert (out / "pr_curve.png").exists() and (out / "overlays/a.jpg.png").exists()


def test_picks_in_files_get_the_same_figures(checkpoint, data, tmp_path):
    truth = data[0] / "truth.json"
    pick(checkpoint, data, tmp_path / "out", "--evaluate", truth, "--formats", "star", "box")
    ours = json.loads((tmp_path / "out/evaluation.json").read_text())
    for n, more in enumerate((("--micrographs", data[0] / "*.jpg"), ())):
        for suffix in ("star", "box"):
            output = tmp_path / f"{suffix}{n}"
            pattern = tmp_path / "out" / suffix / f"*.{suffix}"
            call("--evaluate", truth, "--picks", pattern, "--output", output, *more)
            report = json.loads((output / "evaluation.json").read_text())
            for name in ("precision", "recall", "f1", "n_picks", "n_found", "margin_px"):
                assert report[name] == ours[name], (suffix, name)


def test_figures_are_printed_where_no_folder_is_asked_for(data, tmp_path):
    truth = data[0] / "truth.json"
    printed = call("--evaluate", truth, "--picks", truth, "--annotated-margin", 40)
    assert "inside a margin of 40 px, all picks" in printed
    assert "f1         1.000" in printed


def test_coordinates_in_the_wrong_frame_are_noticed(checkpoint, data, tmp_path):
    pick(checkpoint, data, tmp_path / "out", "--formats", "box")
    files = ("--picks", tmp_path / "out/box/*.box", "--micrographs", data[0] / "*.jpg")
    message = refused("--evaluate", data[0] / "truth.json", *files, "--frame", "jpeg")
    assert "not in the frame 'jpeg': give --frame mrc" in message
    message = refused("--evaluate", data[0] / "truth.json", *files, "--truth-frame", "mrc")
    assert "give --truth-frame jpeg" in message


def test_picks_and_truth_of_other_micrographs_are_both_named(data, tmp_path):
    write_coco(tmp_path / "other.json", {"z.jpg": boxes_of([(100, 100)])}, SIZE_PX)
    message = refused("--evaluate", data[0] / "truth.json", "--picks", tmp_path / "other.json")
    assert "z.jpg" in message and "a.jpg" in message


# The threshold


def test_the_chosen_threshold_is_kept_in_the_checkpoint_and_used(checkpoint, data, tmp_path):
    arguments = (
        "--checkpoint", checkpoint, "--micrographs", data[0] / "*.jpg", "--diameter", "20px",
        "--choose-threshold", data[0] / "truth.json",
    )  # fmt: skip
    call(*arguments)
    kept = load_checkpoint(checkpoint)
    on = kept["pick_threshold_chosen_on"]
    assert (on["micrographs"], on["diameter_px"], on["wanted_precision"]) == (list(NAMES), 20, None)
    printed = pick(checkpoint, data, tmp_path / "out", "--evaluate", data[0] / "truth.json")
    assert (
        f"Threshold {kept['pick_threshold']:.4f} (the checkpoint's, chosen for picking)" in printed
    )
    report = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert report["f1"] == pytest.approx(on["f1"]) == report["best"]["f1"]

    call(*arguments, "--precision", 1.0)
    strict = load_checkpoint(checkpoint)
    assert strict["pick_threshold_chosen_on"]["precision"] == 1
    assert strict["pick_threshold"] >= kept["pick_threshold"]
    assert torch.equal(strict["network"]["width"], kept["network"]["width"])


def test_the_threshold_of_a_checkpoint_that_training_replaced_meanwhile_is_not_kept(
    checkpoint, data, tmp_path, monkeypatch
):
    report, better = script.report_counts, {"width": torch.tensor(6.0)}

    def replaced(*args):
        write_checkpoint(checkpoint, network=better, epoch=7)
        report(*args)

    monkeypatch.setattr(script, "report_counts", replaced)
    message = refused(
        "--checkpoint", checkpoint, "--micrographs", data[0] / "*.jpg", "--diameter", "20px",
        "--choose-threshold", data[0] / "truth.json",
    )  # fmt: skip
    assert "was replaced while the threshold was chosen: choose it again" in message
    assert load_checkpoint(checkpoint)["network"] == better


def test_no_threshold_is_chosen_for_a_run_that_still_trains(
    checkpoint, data, tmp_path, monkeypatch
):
    monkeypatch.setattr("picking.files.LOCK_PATIENCE_S", 0.0)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    of_run = checkpoint.rename(run / "checkpoints" / "best_model.pt")
    (of_run.parent / ".best_model.pt.99.tmp").touch()  # by a process that was killed
    arguments = (
        "--checkpoint", of_run, "--micrographs", data[0] / "*.jpg", "--diameter", "20px",
        "--expected-particles", 12,
    )  # fmt: skip
    with locked(run):
        assert f"{run} is in use by process" in refused(*arguments)
        assert len(list(of_run.parent.iterdir())) == 2
    call(*arguments)
    assert list(of_run.parent.iterdir()) == [of_run]


@pytest.mark.parametrize("n_expected", [12, 2.4, 0.1])
def test_the_threshold_for_an_expected_number_gives_so_many_picks(
    checkpoint, data, tmp_path, n_expected
):
    arguments = (
        "--checkpoint", checkpoint, "--micrographs", data[0] / "*.jpg", "--diameter", "20px",
    )  # fmt: skip
    call(*arguments, "--expected-particles", n_expected)
    kept = load_checkpoint(checkpoint)
    assert kept["pick_threshold_chosen_on"] == {
        "micrographs": list(NAMES), "diameter_px": 20, "expected_particles": n_expected,
    }  # fmt: skip
    assert kept["threshold"] == 0.4  # that of training stays
    printed = call(*arguments, "--output", tmp_path / "out")
    assert "(the checkpoint's, chosen for picking)" in printed
    found = read_picks(sorted((tmp_path / "out/star").iterdir()), dict.fromkeys(NAMES, SIZE_PX))
    n_picks = sum(len(picks.centres_px) for picks in found)
    assert n_picks == max(1, round(3 * n_expected))
    scores = [np.load(path)["scores"] for path in (tmp_path / "out/scored").iterdir()]
    best = np.sort(np.concatenate(scores))[::-1]
    assert best[n_picks - 1] == kept["pick_threshold"] > best[n_picks]


# What is refused


def test_a_stack_is_refused_before_anything_is_scored(checkpoint, data, tmp_path):
    import mrcfile

    with mrcfile.new(tmp_path / "movie.mrc") as mrc:
        mrc.set_data(np.zeros((3, 8, 8), np.float32))
    message = refused(
        "--checkpoint", checkpoint, "--micrographs", tmp_path / "movie.mrc", "--diameter", "20px",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert "average the movie first" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--micrographs": "{data}/*.mrc"}, "no file matches .*files in .* end in .jpg, .json"),
        ({"--micrographs": "{data}/truth.json"}, "truth.json is no micrograph"),
        ({"--diameter": "150A"}, "150A is in Å: give --pixel-size"),
        ({"--diameter": "150"}, "give a number with its unit"),
        ({"--diameter": "0px"}, "give a number with its unit"),
        ({"--diameter": None}, "--diameter is missing"),
        ({"--output": None}, "--output is missing"),
        ({"--checkpoint": None}, "give --checkpoint and --micrographs"),
        ({"--threshold": "1.5"}, "--threshold is '1.5'"),
        ({"--threshold": "nan"}, "--threshold is 'nan'"),
        ({"--annotated-margin": "far"}, "--annotated-margin is 'far'"),
        ({"--picks": "{data}/truth.json"}, "not both"),
        ({"--choose-threshold": "{data}/truth.json"}, "is chosen for the checkpoint alone"),
        ({"--expected-particles": "12"}, "is chosen for the checkpoint alone"),
        ({"--expected-particles": "0", "--output": None}, "--output is missing"),
        ({"--expected-particles": "0"}, "--expected-particles is above 0"),
        ({"--expected-particles": "-3", "--output": None}, "--expected-particles is above 0"),
        ({"--expected-particles": "nan", "--output": None}, "--expected-particles is above 0"),
        ({"--expected-particles": "inf", "--output": None}, "--expected-particles is above 0"),
        (
            {"--expected-particles": "3", "--choose-threshold": "x", "--output": None},
            "goes without --choose-threshold",
        ),
        (
            {"--expected-particles": "3", "--precision": "0.9", "--output": None},
            "--precision goes with --choose-threshold",
        ),
        ({"--expected-particles": "5000", "--output": None}, "only .* candidates on 3 micrographs"),
        ({"--precision": "0.9"}, "--precision goes with --choose-threshold"),
        ({"--evaluate": "{data}/none.json"}, "no file matches"),
        ({"--device": "cuda:7"}, "cuda:7 is not there"),
    ],
)
def test_mistakes_are_named_in_one_sentence(checkpoint, data, tmp_path, changed, message):
    arguments = {
        "--checkpoint": str(checkpoint),
        "--micrographs": "{data}/*.jpg",
        "--output": str(tmp_path / "out"),
        "--diameter": "20px",
        **changed,
    }
    argv = [part for item in arguments.items() if item[1] is not None for part in item]
    with pytest.raises(UserError, match=message):
        call(*(part.replace("{data}", str(data[0])) for part in argv))
    assert not list(tmp_path.glob("out/star"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": None}, "has no threshold: give --threshold, or choose one"),
        ({"input": None}, "does not say how its input was prepared"),
        ({"kind": "active_run"}, "no model to pick with"),
        ({"network": {"other": torch.zeros(1)}}, "of another architecture"),
    ],
)
def test_a_checkpoint_that_cannot_pick_is_named(data, tmp_path, changes, message):
    path = write_checkpoint(tmp_path / "some.pt", **changes)
    with pytest.raises(UserError, match=message) as error:
        pick(path, data, tmp_path / "out")
    assert "some.pt" in str(error.value)


def test_micrographs_whose_picks_would_be_one_file_are_refused(checkpoint, data, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / folder / "a.png")
    message = refused(
        "--checkpoint", checkpoint, "--micrographs", tmp_path / "*/a.png", "--output",
        tmp_path / "out", "--diameter", "20px",
    )  # fmt: skip
    assert "would have the same files of picks" in message


def test_on_a_grey_micrograph_nothing_is_picked_and_every_file_is_written(checkpoint, tmp_path):
    Image.new("L", SIZE_PX[::-1], 128).save(tmp_path / "a.png")
    call(
        "--checkpoint", checkpoint, "--micrographs", tmp_path / "a.png", "--output",
        tmp_path / "picks", "--diameter", f"{DIAMETER_PX}px", "--device", "cpu", "--formats",
        "star", "box", "csv", "coco", "--overlay", "--heatmap", "--threshold", "0.9",
    )  # fmt: skip
    (found,) = read_picks([tmp_path / "picks" / "csv" / "a.csv"], {"a.png": SIZE_PX})
    assert len(found.scores) == 0
    assert len(files_of(tmp_path / "picks")) == 10


def test_a_damaged_manifest_is_named(checkpoint, data, tmp_path):
    pick(checkpoint, data, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text("[3]")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        pick(checkpoint, data, tmp_path / "out", "--resume")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": {"data": 3}}, "unknown key|must be a section"),
        ({"config": []}, "holds no configuration"),
        ({"threshold": 7.0}, "threshold is not from 0 to 1"),
        ({"threshold": "high"}, "threshold is not from 0 to 1"),
        ({"input": {"side_px": 95, "tiles": 2, "resize": "stretch", "disk": 1.0}}, "halved"),
        ({"input": {"side_px": 96, "tiles": 10**6, "resize": "stretch", "disk": 1.0}}, "damaged"),
        ({"input": {"side_px": 96, "tiles": 2, "resize": "fold", "disk": 1.0}}, "damaged"),
        ({"input": {"side_px": 96, "tiles": 2, "resize": "pad", "disk": -1.0}}, "damaged"),
        ({"network": {}}, "another architecture"),
        ({"kind": "pu_classifier", "input": {"patch_size_px": 32}, "config": 3}, "input_size_px"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(tmp_path, data, changes, words):
    path = write_checkpoint(tmp_path / "best_model.pt", **changes)
    with pytest.raises(UserError, match=words) as error:
        pick(path, data, tmp_path / "out")
    assert "best_model.pt" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_diameter_that_would_blow_up_the_micrograph_is_refused(data, tmp_path):
    config = plain(PUConfig(data=DataConfig(input_size_px=32)))
    config["model"]["backbone"] = "unet"
    path = tmp_path / "best_model.pt"
    wants = {"patch_size_px": 64, "scale": 1.0, "diameter_px": 20.0, "reach_px": 5.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "UNet", Dark)
        write_checkpoint(path, kind="pu_classifier", config=config, input=wants)
        message = refused(
            "--checkpoint", path, "--micrographs", data[0] / "a.jpg", "--device", "cpu",
            "--output", tmp_path / "out", "--diameter", "0.001px",
        )  # fmt: skip
    assert "would be scaled to" in message and "check --diameter" in message
