"""From a few picks of one's own to picks everywhere: preprocess, train, pick; and what is wrong."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pick_particles
import preprocess_coco_full_dataset as script
from picking.errors import InputWarning
from picking.formats.coordinates import read_picks
from picking.micrographs.mrc import write_mrc
from picking.micrographs.preparation import PREPARATION
from picking.preprocessing.montage import write_montage
from picking.preprocessing.windows.plan import POSITIVE_RADIUS
from picking.pu_learning import train as pu_training
from picking.runs.checkpoints import load_checkpoint, save_checkpoint
from picking.stores.patches import PatchStore
from tests.fixtures import few_picks
from tests.fixtures.cryosparc import locations, write_cs
from tests.fixtures.data_sets import boxes, coco, some_centres
from tests.fixtures.patch_stores import content, damage
from tests.fixtures.pu_runs import call, results_of
from tests.fixtures.runs import refusal

SIZE_PX, DIAMETER_PX = (400, 480), 36
N_PARTICLES, N_PICKED = 16, 6  # on each micrograph; picks on the first three of five
NAMES = ("m0", "m1", "m2", "m3", "m4")
KINDS = ("star", "box", "csv", "txt", "json")  # all but the CSV in the frame of the MRC
EXPECTED = ("--expected-particles", N_PARTICLES)
FRACTION = N_PARTICLES * np.pi * (POSITIVE_RADIUS * DIAMETER_PX) ** 2 / np.prod(SIZE_PX)
FEW = Path(script.__file__).parent / "configs/pu_few_labels.yaml"
SMALL = ("data.input_size_px=32", "model.width=3", "model.depth=2", "training.batch_size=11")


class Knows(nn.Module):
    """A U-Net that knows: within 5 px of the middle of a dark disk of 20 px is a particle."""

    def __init__(self, width, depth):
        super().__init__()
        self.depth, self.reach_px = depth, 8
        self.width = nn.Parameter(torch.tensor(6.0))

    def forward(self, x):
        x = nn.functional.avg_pool2d(nn.functional.pad(x, [8] * 4, mode="reflect"), 17, 1)
        return -self.width * (x + 4.4)


class Flat(Knows):
    """One that scores all places alike."""

    def forward(self, x):
        return 0 * super().forward(x)


def write_labels(folder, kind, picks):
    """Write name -> centres (y, x) in the JPEG's frame as other programs would; one STAR of all."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "star":
        head = "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n"
        rows = [f"raw/{n}.mrc {x} {SIZE_PX[0] - y}" for n, c in picks.items() for y, x in c]
        (folder / "picks.star").write_text(head + "\n".join(rows) + "\n")
        return
    if kind == "txt":  # Topaz
        rows = [f"{n}\t{x}\t{SIZE_PX[0] - y}" for n, c in picks.items() for y, x in c]
        (folder / "topaz.txt").write_text("\n".join(["image_name\tx_coord\ty_coord", *rows]))
        return
    if kind == "json":  # EMAN2
        for name, centres in picks.items():
            listed = [[float(x), float(SIZE_PX[0] - y), "manual"] for y, x in centres]
            (folder / f"{name}_info.json").write_text(json.dumps({"boxes": listed}))
        return
    for name, centres in picks.items():
        lines = ["X-Coordinate,Y-Coordinate,Diameter"]
        lines += [f"{x},{y},{DIAMETER_PX}" for y, x in centres]
        if kind == "box":  # the corner with the lowest x and y, and the sides
            half, height = DIAMETER_PX / 2, SIZE_PX[0]
            lines = [f"{x - half} {height - y - half} {2 * half} {2 * half}" for y, x in centres]
        (folder / f"{name}.{kind}").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Micrographs of dark disks as JPGs and MRCs, all their particles, and files of a few picks."""
    root, rng = tmp_path_factory.mktemp("few"), np.random.default_rng(0)
    centres = {n: some_centres(rng, N_PARTICLES, SIZE_PX, 20, 54) for n in NAMES}
    for kind in ("jpg", "mrc"):
        (root / kind).mkdir()
    y, x = np.ogrid[: SIZE_PX[0], : SIZE_PX[1]]
    for name, listed in centres.items():
        image = rng.normal(140, 15, SIZE_PX)
        for cy, cx in listed:
            image[(y - cy) ** 2 + (x - cx) ** 2 < (DIAMETER_PX / 2) ** 2] -= 60
        grey = Image.fromarray(image.clip(0, 255).astype(np.uint8))
        grey.save(root / "jpg" / f"{name}.jpg", quality=95)
        write_mrc(root / "mrc" / f"{name}.mrc", image * 7 - 300, 1.5)
    picked = {n: centres[n][:N_PICKED] for n in NAMES[:3]}
    for name, unit in (("fractions", np.array(SIZE_PX)), ("halves", 2)):
        rows = ["Micrograph,X-Coordinate,Y-Coordinate,Diameter"]
        rows += [f"{n}.jpg,{x},{y},{DIAMETER_PX}" for n in NAMES for y, x in centres[n] / unit]
        (root / f"{name}.csv").write_text("\n".join(rows))
    for kind in KINDS:
        write_labels(root / kind, kind, picked)
    return SimpleNamespace(root=root, centres=centres, picked=picked)


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    yield from few_picks.without_pictures()


def preprocess(data, output, *flags, **changed):
    """Make a tiny store; return what was printed. ``changed`` overrides; None: no such flag."""
    given = {
        "micrographs": data.root / "jpg/*.jpg", "labels": data.root / "csv/*.csv",
        "diameter": f"{DIAMETER_PX}px", **changed,
    }  # fmt: skip
    return few_picks.preprocess(output, *flags, **given)


def refused(data, output, *flags, **changed):
    return refusal(preprocess, data, output, *flags, **changed)


def train(store, experiments, overrides, *flags):
    """Train a small U-Net as the config of few labels has it; return its folder."""
    sets = [f"--set={one}" for one in (*SMALL, *overrides)]
    call(
        "--config", FEW, "--exp-name", "run", "--experiments-dir", experiments, "--data-dir", store,
        "--device", "cpu", "--num-workers", 0, *sets, *flags,
    )  # fmt: skip
    return experiments / "run"


@pytest.fixture(scope="module")
def store(data, tmp_path_factory):
    """A store of the JPGs with picks from CSV, of 16 particles expected on each."""
    output = tmp_path_factory.mktemp("store") / "store"
    preprocess(data, output, *EXPECTED)
    return output


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    """A run of a network that knows, of two steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("picking.training.networks.UNet", Knows)
        return train(store, tmp_path_factory.mktemp("runs"), overrides=["training.max_steps=2"])


# The store


@pytest.mark.parametrize("image", ["jpg", "mrc"])
def test_picks_of_every_format_and_frame_label_the_same_windows(data, tmp_path, image):
    for kind in KINDS:
        found, labels = data.root / f"{image}/*.{image}", data.root / f"{kind}/*.{kind}"
        preprocess(data, tmp_path / kind, micrographs=found, labels=labels)
    first, *others = (content(tmp_path / kind) for kind in KINDS)
    for name in first.keys() - {"metadata.json"}:
        assert all(one[name] == first[name] for one in others), name
    for split, n in (("train", 2), ("val", 1)):
        rows = PatchStore(tmp_path / "star", split)
        assert rows.labeled.sum() == n * N_PICKED
        for i, name in enumerate(rows.names):
            wanted = data.picked.get(name[:2], np.empty((0, 2)))
            at = rows.centre[rows.labeled & (rows.micrograph == i)]
            np.testing.assert_allclose(at, wanted, atol=0.01)
        middle = rows[:][:, 28:36, 28:36].mean(axis=(1, 2))
        assert middle[rows.labeled].max() < np.median(middle[~rows.labeled])  # a disk is there


def test_particles_of_cryosparc_are_labels_where_their_alignment_puts_them(data, tmp_path):
    tables = []
    for i, (name, centres) in enumerate(data.picked.items()):
        y, x = np.array(centres).T
        # Picked 6 px too far right and 3 px too low on cryoSPARC's screen; boxes are binned by 3
        fractions = np.stack([(x + 6) / SIZE_PX[1], (SIZE_PX[0] - y - 3) / SIZE_PX[0]], axis=1)
        uids, path = np.arange(len(y)) + 100 * i, f"J2/motioncorrected/0012{i}_{name}.mrc"
        tables.append(locations(fractions, uids, path, SIZE_PX))
    columns = {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}
    n = len(columns["uid"])
    write_cs(tmp_path / "J5_passthrough_particles.cs", **columns)
    main = {"uid": columns["uid"][::-1], "alignments2D/psize_A": np.full(n, 3.0, "<f4")}
    main["alignments2D/shift"] = np.full((n, 2), (2, -1), "<f4")
    write_cs(tmp_path / "J5_particles.cs", **main)
    labels = tmp_path / "J5_*particles.cs"
    message = refused(data, tmp_path / "store", "--frame", "jpeg", labels=labels)
    assert "give --frame mrc" in message
    preprocess(data, tmp_path / "store", labels=labels)
    rows = PatchStore(tmp_path / "store", "train")
    for i, name in enumerate(rows.names):
        wanted = data.picked.get(name[:2], np.empty((0, 2)))
        at = rows.centre[rows.labeled & (rows.micrograph == i)]
        np.testing.assert_allclose(at, wanted, atol=0.01)


def test_the_store_has_a_montage_and_its_windows_are_counted(data, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "write_montage", lambda *a: a[0].name == "val" or write_montage(*a))
    printed = preprocess(data, tmp_path / "store", *EXPECTED)
    assert f"Fraction of positives among their places: {FRACTION:.4f}; of those near no" in printed
    assert "2, 2 of them with picks" in printed and "Picks: 12, a window about each" in printed
    picture = np.asarray(Image.open(tmp_path / "store/montage_train.png").convert("RGB"))
    for colour in ((0x2C, 0xA0, 0x2C), (0xFF, 0x7F, 0x0E)):  # labelled and unknown
        assert (np.abs(picture.astype(int) - colour).max(axis=2) < 20).sum() > 100


def test_neither_workers_nor_the_unit_of_the_diameter_change_a_window(data, store, tmp_path):
    preprocess(data, tmp_path / "a", *EXPECTED, num_workers=2)
    preprocess(data, tmp_path / "b", *EXPECTED, diameter="54A", pixel_size=1.5)
    of_a, of_b, of_store = (content(folder) for folder in (tmp_path / "a", tmp_path / "b", store))
    assert of_a == of_store
    said = [json.loads(files.pop("metadata.json")) for files in (of_a, of_b)]
    assert said[1]["windows"].pop("pixel_size_angstrom") == 1.5  # which is known of b alone
    assert said[0] == said[1] and of_a == of_b


def test_the_pixel_size_of_the_headers_makes_the_store_that_the_same_one_given_does(data, tmp_path):
    mrcs = {"micrographs": data.root / "mrc/*.mrc", "diameter": "54 \u212b"}
    assert "Pixel size: 1.5 Å (the headers of 5 MRC" in preprocess(data, tmp_path / "a", **mrcs)
    preprocess(data, tmp_path / "b", **mrcs, pixel_size=1.5)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    with pytest.warns(InputWarning, match=r"--pixel-size is 0\.5 Å.*1\.5 Å"):
        preprocess(data, tmp_path / "c", "--dry-run", **mrcs | {"diameter": "18A"}, pixel_size=0.5)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--diameter", "40px"), "diameter_px: 36.0 there, 40.0 now"),
        (("--windows-per-micrograph", 9), "per_micrograph: 60 there, 9 now"),
        (("--expected-particles", 9), "expected_particles: 16.0 there, 9.0 now"),
        (("--val-micrographs", "{root}/jpg/m1.jpg", "{root}/jpg/m2.jpg"), "annotations_hash: "),
        (("--max-images-train", 3), "max_images: "),
    ],
)
def test_a_finished_store_is_left_alone_and_other_arguments_are_named(data, store, flags, words):
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    assert "is complete already: nothing to do" in preprocess(data, store, *EXPECTED)
    flags = [str(flag).replace("{root}", str(data.root)) for flag in flags]
    message = refused(data, store, *EXPECTED, *flags)
    assert "made with other arguments" in message and words in message
    assert before == {path: path.stat().st_mtime_ns for path in store.rglob("*")}


@pytest.mark.parametrize(("name", "header"), [("m2", 1), ("m2", 0), ("m1", 1), ("m1", 0)])
def test_unreadable_micrographs_are_left_out_when_asked(data, tmp_path, name, header):
    shutil.copytree(data.root / "jpg", tmp_path / "jpg")
    damage(tmp_path / "jpg" / f"{name}.jpg", header=header)
    mine = {"micrographs": tmp_path / "jpg/*.jpg"}
    assert f"{name}.jpg cannot be" in refused(data, tmp_path / "store", **mine)
    printed = preprocess(data, tmp_path / "store", "--skip-unreadable", **mine)
    assert "1 images that cannot be read, left out" in printed
    stores = [PatchStore(tmp_path / "store", split) for split in ("train", "val")]
    known = [f"{n}.jpg" for n in NAMES[:3] if n != name]  # there are no picks on the others
    assert sorted(stores[0].names + stores[1].names) == known


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data_root": "{root}"}, "give --data-root, a data set, or --micrographs with --labels"),
        ({"labels": None}, "--micrographs needs --labels too"),
        ({"labels": "{root}/csv/m0.csv"}, "picks lie on 1 micrograph, but two are needed"),
        ({"labels": "{root}/star/picks.star", "frame": "jpeg"}, "'jpeg': give --frame mrc"),
        ({"frame": "mrc"}, "of 18 coordinates fit .* upside down.*'mrc': give --frame jpeg"),
        ({"diameter": None}, "--micrographs needs --diameter too"),
        ({"diameter": "54A"}, "54A is in Å: give --pixel-size"),
        (
            {"diameter": "134px"},
            "but m0.jpg is 480 x 400 px, and should be 3 diameters wide .*--di",
        ),
        ({"diameter": "4px"}, "is 4 px on m0.jpg, and below 6 px nothing .*: check --diameter"),
        ({"diameter": "36px", "pixel_size": -1}, "--pixel-size is -1"),
        ({"labels": "{root}/fractions.csv"}, "fractions.csv: .*m0.jpg.*fractions.*multiply"),
        ({"labels": "{root}/halves.csv"}, "halves.csv: .*times 2 .*binned by 2"),
        ({"expected_particles": 3000}, "--expected-particles 3000 of 36 px would be centred"),
        ({"tasks": "segmentation"}, "leave --tasks segmentation out"),
        ({"hide_ratio": 0.5}, "--hide-ratio has no meaning with --micrographs: leave it out"),
        ({"micrographs": None, "data_root": "{root}"}, "has no meaning with --data-root"),
        ({"output_dir": "{root}/jpg"}, "--output-dir .*jpg is among the micrographs"),
    ],
)
def test_mistakes_are_named_in_one_sentence(data, tmp_path, changed, words):
    before = content(data.root)
    changed = {k: v and str(v).replace("{root}", str(data.root)) for k, v in changed.items()}
    assert re.search(words, refused(data, tmp_path / "store", **changed))
    assert not (tmp_path / "store/metadata.json").exists() and content(data.root) == before


# Training


def test_the_run_says_what_it_is_chosen_by_and_its_checkpoint_how_to_scale(run):
    best = load_checkpoint(run / "checkpoints/best_model.pt")
    wanted = {"patch_size_px": 64, "scale": 20 / 36, "diameter_px": 36.0, "reach_px": 5.0}
    coarseness = best["input"]["coarseness"]  # of these very disks
    assert 0 < coarseness < 2
    assert best["input"] == {**wanted, "preparation": PREPARATION, "coarseness": coarseness}
    log, results = (run / "training.log").read_text(), results_of(run)
    assert "is chosen by the AUC of labelled against unlabeled windows on the held-out" in log
    assert "no better than calling everything positive" not in log
    assert best["threshold"] == results["threshold"] == 0.5
    assert (results["truth_known"], results["success_criteria"]) == (False, [])
    assert results["prior"] == pytest.approx(FRACTION)
    # picks are no part of the unlabeled
    picked = FRACTION * N_PICKED / N_PARTICLES
    assert results["unlabeled_prior"] == pytest.approx((FRACTION - picked) / (1 - picked))
    assert results["prior_source"] == results["unlabeled_prior_source"] == "data"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_an_expected_number_the_fraction_is_estimated(data, tmp_path, seed):
    preprocess(data, tmp_path / "store")
    short = ("training.max_steps=1", "loss.estimate_steps=3", f"training.seed={seed}")
    results = results_of(train(tmp_path / "store", tmp_path, overrides=short))
    assert results["prior_source"] == results["unlabeled_prior_source"] == "estimate"
    assert 0 < results["unlabeled_prior"] < results["prior"] < 1


def test_a_u_net_learns_from_a_few_picks_to_tell_them_from_most_windows(store, tmp_path):
    folder = train(store, tmp_path, overrides=("training.max_steps=40", "optimizer.lr=0.01"))
    assert results_of(folder)["val"]["auc"] > 0.85
    log = (folder / "training.log").read_text()
    assert "one class" not in log and "what chance may give" not in log
    assert "Scores of picks will be about the probability to be a particle" in log


def test_a_u_net_that_tells_nothing_apart_is_said_to(store, tmp_path):
    folder = train(store, tmp_path, overrides=("training.max_steps=40", "optimizer.lr=1e-8"))
    assert "what chance may give" in (folder / "training.log").read_text()


def test_places_near_a_pick_are_labelled_in_whatever_window_they_lie(store, tmp_path, monkeypatch):
    seen = []

    def noting(name):
        wrapped = getattr(pu_training, name)

        def note(z_first, z_second, *arguments, **named):
            seen.append((len(z_first), len(z_second)))
            return wrapped(z_first, z_second, *arguments, **named)

        return note

    for name in ("pnu_risk", "fixmatch_consistency"):
        monkeypatch.setattr(pu_training, name, noting(name))
    still = ["augmentation.rotation_degrees=0", "augmentation.scale=0"]
    train(store, tmp_path, overrides=["training.max_steps=10", *still])
    own, places = 3 * 81, 8 * 32**2  # of the picks that three windows are about, of eight others
    for (n_labelled, n_unlabeled), views in zip(seen[::2], seen[1::2], strict=True):
        assert n_labelled >= own and n_unlabeled <= places
        assert views == (n_unlabeled, n_unlabeled)
    further = sum(n_labelled - own for n_labelled, _ in seen[::2])
    left_out = sum(places - n_unlabeled for _, n_unlabeled in seen[::2])
    assert further >= left_out > 0


def test_scores_are_calibrated_on_the_held_out_windows(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr("picking.training.networks.UNet", Knows)
    best = load_checkpoint(run / "checkpoints/best_model.pt")
    assert best["calibration"] == results_of(run)["calibration"]
    assert best["calibration"]["slope"] > 0 and 0 < best["calibration"]["threshold"] <= 0.6
    found = ("--checkpoint", run / "checkpoints/best_model.pt", "--micrographs")
    found = (*found, data.root / "jpg/m[34].jpg", "--device", "cpu", "--formats", "csv")
    printed = call(*found, "--output", tmp_path / "out", main=pick_particles.main)
    assert "where training expects the highest F1" in printed
    for name in ("m3", "m4"):  # at a threshold that nobody chose
        (picks,) = read_picks([tmp_path / f"out/csv/{name}.csv"], {})
        assert_found(picks, data.centres[name], within_px=3)


def test_a_run_that_is_killed_before_its_end_is_calibrated_alike(run, store, tmp_path, monkeypatch):
    monkeypatch.setattr("picking.training.networks.UNet", Knows)
    shutil.copytree(run, tmp_path / "run")
    best = tmp_path / "run/checkpoints/best_model.pt"
    wanted = best.read_bytes()
    content = load_checkpoint(best)
    del content["calibration"]
    save_checkpoint(best, content)
    (tmp_path / "run/results.json").unlink()
    train(store, tmp_path, ["training.max_steps=2"], "--resume")
    assert best.read_bytes() == wanted


def test_scores_that_nothing_calibrates_stay_as_they_are(store, tmp_path, monkeypatch):
    monkeypatch.setattr("picking.training.networks.UNet", Flat)
    with pytest.warns(InputWarning, match="the scores are not calibrated"):
        folder = train(store, tmp_path, ["training.max_steps=1"])
    assert "calibration" not in load_checkpoint(folder / "checkpoints/best_model.pt")
    log = (folder / "training.log").read_text()
    assert "let pick_particles.py find one, with --expected-particles" in log


# Picking


@pytest.mark.parametrize("image", ["jpg", "mrc"])
def test_picks_come_out_in_px_of_the_micrograph(data, run, tmp_path, monkeypatch, image):
    monkeypatch.setattr("picking.training.networks.UNet", Knows)
    checkpoint = shutil.copy(run / "checkpoints/best_model.pt", tmp_path)
    found = ("--checkpoint", checkpoint, "--micrographs", data.root / image / f"m[34].{image}")
    call(*found, *EXPECTED, "--device", "cpu", main=pick_particles.main)
    output = ("--output", tmp_path / "out", "--device", "cpu", "--formats", "star", "csv")
    assert "diameter 36 px" in call(*found, *output, main=pick_particles.main)  # of the labels
    sizes = {f"{name}.{image}": SIZE_PX for name in ("m3", "m4")}
    for kind in ("star", "csv"):
        found = read_picks(sorted((tmp_path / "out" / kind).iterdir()), sizes)
        assert {picks.name for picks in found} == sizes.keys()
        for picks in found:
            assert_found(picks, data.centres[picks.name[:2]], within_px=3)


def test_micrographs_of_another_pixel_size_are_scaled_by_their_own_diameter(
    data, run, tmp_path, monkeypatch
):
    monkeypatch.setattr("picking.training.networks.UNet", Knows)
    enlarged = Image.open(data.root / "jpg/m3.jpg").resize([round(1.5 * n) for n in SIZE_PX[::-1]])
    enlarged.save(tmp_path / "m3.png")
    checkpoint = shutil.copy(run / "checkpoints/best_model.pt", tmp_path)
    found = ("--checkpoint", checkpoint, "--micrographs", tmp_path / "m3.png", "--device", "cpu")
    found = (*found, "--diameter", f"{1.5 * DIAMETER_PX}px")
    call(*found, *EXPECTED, main=pick_particles.main)
    call(*found, "--output", tmp_path / "out", "--formats", "csv", main=pick_particles.main)
    (picks,) = read_picks([tmp_path / "out/csv/m3.csv"], {})
    assert_found(picks, 1.5 * data.centres["m3"], within_px=4.5)


def assert_found(picks, centres, within_px):
    """All particles are picked, and nothing else."""
    assert len(picks.centres_px) == N_PARTICLES
    away = centres[:, None] - picks.centres_px
    nearest = np.hypot(*away.transpose(2, 0, 1)).min(axis=1)
    assert nearest.max() < within_px and np.median(nearest) < within_px / 2


# What the files of picks hold besides


def test_a_pick_that_is_listed_twice_makes_one_window_and_one_prior(data, tmp_path, store):
    twice = {name: np.repeat(listed, 2, axis=0) for name, listed in data.picked.items()}
    write_labels(tmp_path / "csv", "csv", twice)
    with pytest.warns(InputWarning, match=r"m0\.csv.*: 18 of 36 particles are listed twice"):
        preprocess(data, tmp_path / "store", *EXPECTED, labels=tmp_path / "csv/*.csv")
    once, merged = content(store), content(tmp_path / "store")
    assert all(merged[name] == once[name] for name in once if name != "metadata.json")


def test_more_picks_than_expected_are_a_contradiction_that_is_said_before_training(data, tmp_path):
    message = refused(data, tmp_path / "store", "--expected-particles", 3)
    assert "--expected-particles is 3" in message and "6.0 picks" in message
    for number in ("nan", "inf", "-5", "0"):
        message = refused(data, tmp_path / "store", "--expected-particles", number)
        assert message.startswith("--expected-particles is ") and "give the number" in message
    fewer = {**data.picked, "m2": data.picked["m2"][:2]}
    write_labels(tmp_path / "csv", "csv", fewer)
    mine = {"labels": tmp_path / "csv/*.csv"}
    with pytest.warns(InputWarning, match=r"particles is 5.* 2 of 3 micro.* 6 on m[01]\.jpg"):
        preprocess(data, tmp_path / "store", "--expected-particles", 5, "--dry-run", **mine)


def test_labels_of_one_category_are_taken(data, tmp_path):
    listed = {f"{name}.jpg": boxes(c, DIAMETER_PX) for name, c in data.picked.items()}
    annotations = coco(listed, SIZE_PX)
    annotations["categories"] = [{"id": 1, "name": "top"}, {"id": 2, "name": "ice"}]
    for box in annotations["annotations"][::2]:
        box["category_id"] = 2
    labels = tmp_path / "picks.json"
    labels.write_text(json.dumps(annotations))
    message = refused(data, tmp_path / "store", labels=labels)
    assert "'ice' (9), 'top' (9)" in message and "--category" in message
    with pytest.warns(InputWarning, match="9 boxes of 'ice' are left out"):
        printed = preprocess(data, tmp_path / "store", "--category", "top", labels=labels)
    assert "Picks: 6, a window" in printed
    with pytest.warns(InputWarning, match="9 boxes of 'top'"):
        message = refused(data, tmp_path / "store", "--category", "ice", labels=labels)
    assert "store made with other arguments" in message
    assert "--category top chooses in COCO" in refused(data, tmp_path, "--category", "top")
