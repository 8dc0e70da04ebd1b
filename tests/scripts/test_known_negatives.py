"""What is no particle, junk and complete micrographs: from files to a network that knows better."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import preprocess_coco_full_dataset as script
from picking.config import PUConfig, config_from_dict
from picking.errors import InputWarning
from picking.formats.coordinates import write_picks
from picking.formats.picks import Picks
from picking.micrographs.preparation import PARTICLE_PX, prepare, scale_micrograph
from picking.preprocessing.montage import write_montage
from picking.runs.checkpoints import load_checkpoint
from picking.stores.patches import IGNORED, NO_PARTICLE, UNKNOWN, PatchStore
from picking.training.augment import to_float
from picking.training.networks import build_network
from tests.fixtures import few_picks
from tests.fixtures.data_sets import some_centres
from tests.fixtures.patch_stores import content
from tests.fixtures.pu_runs import call, metrics_of, results_of
from tests.fixtures.runs import refusal

SIZE_PX, DIAMETER_PX = (400, 480), 36
N_PARTICLES, N_PICKED, N_DECOYS = 12, 6, 8  # on each micrograph; picks on the first three of five
NAMES = ("m0", "m1", "m2", "m3", "m4")
FEW = Path(script.__file__).parent / "configs/pu_few_labels.yaml"
SMALL = ("data.input_size_px=32", "model.width=4", "model.depth=2", "training.batch_size=11")


def write(folder, kind, centres, one_file=True):
    """Write name -> centres (y, x) in a format; return the pattern of the files."""
    picks = [
        Picks(f"{name}.jpg", np.array(c, float).reshape(-1, 2), np.full(len(c), np.nan),
              np.full(len(c), float(DIAMETER_PX)), SIZE_PX)
        for name, c in centres.items()
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    files = write_picks(folder, picks, [kind], one_file)
    return files[0] if one_file else files[0].parent / f"*{files[0].suffix}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Micrographs of dark disks, and of decoys: disks that are bright in the middle."""
    root, rng = tmp_path_factory.mktemp("decoys"), np.random.default_rng(0)
    (root / "jpg").mkdir()
    centres, decoys = {}, {}
    y, x = np.ogrid[: SIZE_PX[0], : SIZE_PX[1]]
    for name in NAMES:
        every = some_centres(rng, N_PARTICLES + N_DECOYS, SIZE_PX, 20, 54)
        centres[name], decoys[name] = every[:N_PARTICLES], every[N_PARTICLES:]
        image = rng.normal(140, 15, SIZE_PX)
        for cy, cx in every:
            image[(y - cy) ** 2 + (x - cx) ** 2 < (DIAMETER_PX / 2) ** 2] -= 40
        for cy, cx in decoys[name]:
            image[(y - cy) ** 2 + (x - cx) ** 2 < (DIAMETER_PX / 5) ** 2] += 30
        grey = Image.fromarray(image.clip(0, 255).astype(np.uint8))
        grey.save(root / "jpg" / f"{name}.jpg", quality=95)
    picked = {n: centres[n][:N_PICKED] for n in NAMES[:3]}
    write(root, "star", picked)
    clicked = {n: decoys[n][:5] for n in NAMES}
    write(root / "none", "star", clicked)
    return SimpleNamespace(root=root, centres=centres, decoys=decoys, clicked=clicked)


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    yield from few_picks.without_pictures()


def preprocess(data, output, *flags, **changed):
    """Make a tiny store; return what was printed. ``changed`` overrides; None: no such flag."""
    given = {
        "micrographs": data.root / "jpg/*.jpg", "labels": data.root / "picks.star",
        "diameter": f"{DIAMETER_PX}px", "expected_particles": N_PARTICLES,
        **changed,
    }  # fmt: skip
    return few_picks.preprocess(output, *flags, **given)


def refused(data, output, *flags, **changed):
    return refusal(preprocess, data, output, *flags, **changed)


def train(store, experiments, *overrides, name="run"):
    sets = [f"--set={one}" for one in (*SMALL, *overrides)]
    call(
        "--config", FEW, "--exp-name", name, "--experiments-dir", experiments, "--data-dir", store,
        "--device", "cpu", "--num-workers", 0, *sets,
    )  # fmt: skip
    return experiments / name


def score_at(folder, data, centres):
    """The mean logit of a run's network at centres (y, x) of name -> centres."""
    best = load_checkpoint(folder / "checkpoints/best_model.pt")
    network = build_network(config_from_dict(best["config"], "", PUConfig)).eval()
    network.load_state_dict(best["network"])
    scores, scale = [], PARTICLE_PX / DIAMETER_PX
    size_px = tuple(round(n * scale / 8) * 8 for n in SIZE_PX)
    for name, of_one in centres.items():
        grey = np.asarray(Image.open(data.root / f"jpg/{name}.jpg"))
        prepared = prepare(scale_micrograph(grey, size_px), (PARTICLE_PX, PARTICLE_PX))
        with torch.no_grad():
            z = network(to_float(torch.from_numpy(prepared)[None]))[0, 0]
        for at in np.rint(np.array(of_one) * np.array(size_px) / SIZE_PX).astype(int):
            scores.append(float(z[tuple(at)]))
    return np.mean(scores)


# Places that are no particle


@pytest.mark.parametrize("kind", ["box", "csv", "coco"])
def test_negatives_of_every_format_and_frame_make_the_same_windows(data, tmp_path, kind):
    preprocess(data, tmp_path / "a", not_particles=data.root / "none/picks.star")
    pattern = write(tmp_path / "none", kind, data.clicked, one_file=kind == "coco")
    preprocess(data, tmp_path / "b", not_particles=pattern)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    for split, names in (("train", 4), ("val", 1)):
        store = PatchStore(tmp_path / "a", split)
        assert store.about_negative.sum() == 5 * names
        for i, name in enumerate(store.names):
            own = store.about_negative & (store.micrograph == i)
            np.testing.assert_allclose(store.centre[own], data.clicked[name[:2]], atol=0.01)
        middles = store[np.flatnonzero(store.about_negative)][:, 30:35, 30:35].mean(axis=(1, 2))
        picked = store[np.flatnonzero(store.labeled)][:, 30:35, 30:35].mean(axis=(1, 2))
        assert middles.min() > picked.max()  # decoys are bright in the middle


def test_the_montage_shows_what_is_no_particle_where_there_is_some(data, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "write_montage", write_montage)
    red = []
    for name, flags in (
        ("plain", {}),
        ("clicked", {"not_particles": data.root / "none/picks.star"}),
    ):
        preprocess(data, tmp_path / name, **flags)
        picture = Image.open(tmp_path / name / "montage_train.png").convert("RGB")
        away = np.abs(np.asarray(picture).astype(int) - (0xD6, 0x27, 0x28)).max(axis=2)
        red.append((away < 20).sum())
    assert red[0] == 0 and red[1] > 100


def test_a_store_of_picks_alone_is_made_anew_once_there_is_more(data, tmp_path):
    preprocess(data, tmp_path / "store")
    assert "nothing to do" in preprocess(data, tmp_path / "store")
    message = refused(data, tmp_path / "store", not_particles=data.root / "none/picks.star")
    assert "made with other arguments (annotations_hash: " in message


def test_what_is_a_pick_too_is_named_and_more_than_a_tenth_of_it_refused(data, tmp_path):
    near = {n: [*c, data.centres[n][0] + (0, 8)] for n, c in data.clicked.items() if n == "m0"}
    some = write(tmp_path / "some", "star", {**data.clicked, **near})
    words = r"picks\.star: 1 of 26 places without a particle are picks too, within a quarter of a"
    with pytest.warns(InputWarning, match=words):
        preprocess(data, tmp_path / "store", not_particles=some)
    found = [PatchStore(tmp_path / "store", split) for split in ("train", "val")]
    assert sum(store.about_negative.sum() for store in found) == 25
    most = write(tmp_path / "most", "star", near)
    assert "1 of 6 places" in refused(data, tmp_path / "other", not_particles=most)
    off = {n: [*c, data.centres[n][0] + (0, 10)] for n, c in data.clicked.items() if n == "m0"}
    preprocess(data, tmp_path / "off", not_particles=write(tmp_path / "off_by", "star", off))


def test_negatives_that_are_listed_twice_count_once(data, tmp_path):
    twice = {
        name: np.repeat(c, 2, axis=0) + [[0, 0], [1, 1]] * 5 for name, c in data.clicked.items()
    }
    with pytest.warns(InputWarning, match="25 of 50 places without a particle are listed twice"):
        preprocess(data, tmp_path / "a", not_particles=write(tmp_path / "none", "star", twice))
    preprocess(data, tmp_path / "b", not_particles=data.root / "none/picks.star")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def upside_down(data):
    return {n: [(SIZE_PX[0] - y, x) for y, x in c] for n, c in data.decoys.items()}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"not_particles": "{root}/missing.star"}, "no file matches .*missing.star"),
        ({"not_particles": "{root}/jpg/m0.jpg"}, "m0.jpg is no file of coordinates"),
        ({"not_particles": "{tmp}/turned/picks.star"}, "upside down, .*give --frame jpeg"),
        ({"not_particles": "{tmp}/outside/picks.star"}, "6 of 6 centres lie outside the image"),
        ({"not_particles": "{tmp}/unknown/picks.star"}, "places without a particle are of z.*n in"),
        ({"junk": "{tmp}/junk"}, r"m0\.png is 48 x 48 px, but m0\.jpg 480 x 400"),
        ({"junk": "{root}/none"}, "--junk .*none holds no PNG"),
        ({"complete": "{tmp}/names.txt"}, r"1 of 1 micrographs that are listed .*\(z; given are m"),
        ({"complete": "{tmp}/some.txt"}, r"1 of 2 micrographs that are listed .*--allow-partial"),
        (
            {"data_root": "{root}", "micrographs": None, "labels": None, "diameter": None,
             "expected_particles": None, "windows_per_micrograph": None, "complete": "x"},
            "--complete has no meaning with --data-root",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named_in_one_sentence(data, tmp_path, changed, words):
    write(tmp_path / "turned", "star", upside_down(data))
    write(tmp_path / "outside", "star", {"m0": np.full((6, 2), 9000.0)})
    write(tmp_path / "unknown", "star", {"z": [(5, 5)]})
    (tmp_path / "junk").mkdir()
    Image.new("L", (48, 48)).save(tmp_path / "junk/m0.png")
    (tmp_path / "names.txt").write_text("z\n")
    (tmp_path / "some.txt").write_text("z\nm1\n")
    places = {"{root}": str(data.root), "{tmp}": str(tmp_path)}
    for key, value in changed.items():
        for name, path in places.items():
            value = value and str(value).replace(name, path)
        changed = {**changed, key: value}
    message = refused(data, tmp_path / "store", **changed)
    assert re.search(words.replace("of z.*n in", "of 1 micrographs that"), message), message
    assert not (tmp_path / "store/metadata.json").exists()


# Junk


def test_nothing_is_drawn_or_learned_where_junk_is_painted(data, tmp_path):
    (tmp_path / "junk").mkdir()
    mask = np.zeros((40, 48), np.uint8)
    mask[:, :24] = 255
    for name in NAMES[:3] + NAMES[4:]:
        Image.fromarray(mask).save(tmp_path / f"junk/{name}.png")
    preprocess(data, tmp_path / "plain")
    with pytest.warns(InputWarning, match=r"picks lie in what was painted as junk \(e\.g\. on m"):
        printed = preprocess(data, tmp_path / "store", junk=tmp_path / "junk")
    assert "With painted junk: " in printed
    for split in ("train", "val"):
        plain, store = (PatchStore(tmp_path / name, split) for name in ("plain", "store"))
        painted = np.array(store.names)[store.micrograph] != "m3.jpg"
        drawn = ~store.labeled
        assert store.centre[drawn & painted, 1].min() >= 240 - 2
        assert plain.centre[drawn & painted, 1].min() < 60
        np.testing.assert_array_equal(store.centre[~painted], plain.centre[~painted])
        assert not (store.picked[np.flatnonzero(~painted)] == IGNORED).any()
        ours = store.picked[np.flatnonzero(painted & drawn)]
        # A window that is cut at the edge of what is painted has it on its left, or mirrored
        assert 0 < (ours == IGNORED).mean() < 0.3 and (ours == UNKNOWN).any()
        wide = (plain.counts["pool_prior"], store.counts["pool_prior"])
        assert wide[1] == pytest.approx(wide[0], rel=0.05)  # as dense as elsewhere


def test_a_micrograph_that_is_junk_all_over_is_left_out_and_named(data, tmp_path):
    (tmp_path / "junk").mkdir()
    Image.new("L", (48, 40), 255).save(tmp_path / "junk/m4.png")
    with pytest.warns(InputWarning, match=r"1 micrographs are junk all over \(e\.g\. m4\.jpg\)"):
        preprocess(data, tmp_path / "store", junk=tmp_path / "junk")
    names = [PatchStore(tmp_path / "store", split).names for split in ("train", "val")]
    assert sorted([*names[0], *names[1]]) == [f"{name}.jpg" for name in NAMES[:3]]


# Complete micrographs


def test_what_is_near_no_pick_of_a_complete_micrograph_is_negative_in_both_splits(data, tmp_path):
    some = {n: data.centres[n] for n in NAMES[:2]} | {"m2": data.centres["m2"][:3]}
    labels = write(tmp_path / "labels", "star", some)
    (tmp_path / "complete.txt").write_text("m1\nm0.mrc\nm4\n")
    val = ("--val-micrographs", data.root / "jpg/m0.jpg", data.root / "jpg/m4.jpg")
    printed = preprocess(
        data, tmp_path / "store", *val, labels=labels, complete=tmp_path / "complete.txt",
        expected_particles=None,
    )  # fmt: skip
    assert "Picked completely: 2, 1 of them without a pick" in printed
    assert f"Expected particles on a micrograph: {2 * N_PARTICLES / 3:.1f}, as on the 3" in printed
    train_, val_ = (PatchStore(tmp_path / "store", split) for split in ("train", "val"))
    assert (train_.names, train_.complete.tolist()) == (
        ["m1.jpg", "m2.jpg"], [True, False]
    )  # fmt: skip
    assert val_.names == ["m0.jpg", "m4.jpg"] and val_.complete.all()
    assert (val_.picked[np.flatnonzero(val_.micrograph == 1)] == NO_PARTICLE).all()
    assert not (val_.picked[:] == UNKNOWN).any()
    assert val_.counts["unlabeled_prior"] == 0 < train_.counts["unlabeled_prior"]


def test_where_all_micrographs_are_complete_the_risk_is_of_positives_and_negatives(data, tmp_path):
    labels = write(tmp_path / "labels", "star", data.centres)
    (tmp_path / "complete.csv").write_text("\n".join(f"{name},{name}.jpg" for name in NAMES))
    given = {"labels": labels, "complete": tmp_path / "complete.csv", "expected_particles": None}
    preprocess(data, tmp_path / "store", **given)
    folder = train(tmp_path / "store", tmp_path, "training.max_steps=40", "optimizer.lr=0.01")
    log, metrics = (folder / "training.log").read_text(), metrics_of(folder)
    assert "Weight of the known negatives (1 - η): 1.0000 (loss.eta: auto)" in log
    assert results_of(folder)["unlabeled_prior"] == 0
    assert all(one["mask_rate"] is None and one["consistency_loss"] == 0 for one in metrics)
    assert metrics[-1]["val"]["auc"] > 0.85
    decoys = score_at(folder, data, {"m3": data.decoys["m3"]})
    assert decoys < score_at(folder, data, {"m3": data.centres["m3"]})


# The folder of labels


@pytest.fixture
def labels(data, tmp_path):
    """A folder of labels as the page keeps it; m4 is left out."""
    folder = tmp_path / "labels"
    (folder / "junk").mkdir(parents=True)
    session = {"micrographs": [f"{data.root}/jpg/*.jpg"], "diameter": "54A", "pixel_size": 1.5}
    (folder / "session.yaml").write_text(json.dumps(session))
    write(folder, "star", {n: data.centres[n][:N_PICKED] for n in (*NAMES[:3], "m4")})
    write(folder / "other", "star", data.clicked)
    (folder / "other/picks.star").rename(folder / "not_particles.star")
    mask = np.zeros((40, 48), np.uint8)
    mask[-10:] = 255
    for name in ("m3", "m4"):
        Image.fromarray(mask).save(folder / f"junk/{name}.png")
    states = ["complete", "in part", "in part", "untouched", "left out"]
    rows = [f"{name}.jpg,{state},6,5" for name, state in zip(NAMES, states, strict=True)]
    (folder / "micrographs.csv").write_text("\n".join(["name,state,picks,not_particles", *rows]))
    return folder


def test_a_folder_of_labels_means_the_same_as_its_files_one_by_one(data, labels, tmp_path):
    ours = {"micrographs": None, "diameter": None, "labels": labels}
    printed = preprocess(data, tmp_path / "a", **ours)
    assert "Left out, as they are marked: 1 of 5 micrographs" in printed
    (tmp_path / "complete.txt").write_text("m0\n")
    (tmp_path / "files").mkdir()
    for name in NAMES[:4]:
        shutil.copy(data.root / f"jpg/{name}.jpg", tmp_path / "files")
    given = {
        "micrographs": tmp_path / "files/*.jpg", "labels": labels / "picks.star",
        "not_particles": labels / "not_particles.star", "junk": labels / "junk",
        "complete": tmp_path / "complete.txt", "diameter": "54A", "pixel_size": 1.5,
    }  # fmt: skip
    with pytest.warns(InputWarning, match="are not given"):  # what is on m4
        preprocess(data, tmp_path / "b", "--allow-partial", **given)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert json.loads((tmp_path / "a/metadata.json").read_text())["windows"]["diameter_px"] == 36.0


def test_what_is_given_goes_before_what_the_folder_says(data, labels, tmp_path):
    preprocess(data, tmp_path / "store", labels=labels, micrographs=None, diameter="40px")
    metadata = json.loads((tmp_path / "store/metadata.json").read_text())
    assert metadata["windows"]["diameter_px"] == 40.0
    assert sum(metadata["splits"][s].get("n_not_particles", 0) for s in ("train", "val")) == 20
    some = f"{data.root}/jpg/m[0123].jpg"
    with pytest.warns(InputWarning, match="are not given"):
        preprocess(data, tmp_path / "some", "--allow-partial", labels=labels, micrographs=some)
    (tmp_path / "none.txt").write_text("m1\n")
    preprocess(
        data, tmp_path / "none", labels=labels, micrographs=None, complete=tmp_path / "none.txt"
    )
    found = [PatchStore(tmp_path / "none", split) for split in ("train", "val")]
    complete = [
        name for s in found for name, is_it in zip(s.names, s.complete, strict=True) if is_it
    ]
    assert complete == ["m1.jpg"]


def test_what_is_wrong_in_a_folder_of_labels_is_said_with_its_place(data, labels, tmp_path):
    ours = {"micrographs": None, "diameter": None, "labels": labels}
    session = json.loads((labels / "session.yaml").read_text())
    session["micrographs"] = ["raw/*.mrc"]
    (labels / "session.yaml").write_text(json.dumps(session))
    message = refused(data, tmp_path / "store", **ours)
    assert "labels/session.yaml, whose files are relative to the working folder: no f" in message
    (labels / "picks.star").unlink()
    assert "has no picks.star, so nothing is picked yet" in refused(data, tmp_path / "s", **ours)


# What the network learns of it


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Two runs of one seed, without and with clicks on decoys of the training micrographs."""
    root = tmp_path_factory.mktemp("runs")
    preprocess(data, root / "plain")
    preprocess(data, root / "clicked", not_particles=data.root / "none/picks.star")
    short = ("training.max_steps=60", "optimizer.lr=0.01")
    return {
        name: train(root / name, root, *short, name=f"run_{name}") for name in ("plain", "clicked")
    }


def test_clicks_on_decoys_lower_the_score_of_others_like_them(data, runs):
    unseen = {name: decoys[5:] for name, decoys in data.decoys.items()}
    below = {
        name: score_at(folder, data, data.centres) - score_at(folder, data, unseen)
        for name, folder in runs.items()
    }
    assert below["clicked"] > below["plain"] + 0.5


def test_a_run_with_negatives_says_what_they_weigh(runs):
    plain, clicked = ((folder / "training.log").read_text() for folder in runs.values())
    assert "Weight of the known" not in plain and "negatives\n" not in plain
    prior = results_of(runs["clicked"])["prior"]
    assert f"Weight of the known negatives (1 - η): {prior:.4f} (loss.eta: auto)" in clicked
    assert "3 + 8 in every batch, and 3 of 20 negatives" in clicked


def test_eta_changes_nothing_where_there_is_no_negative(data, tmp_path):
    preprocess(data, tmp_path / "store")
    one, other = (
        train(
            tmp_path / "store", tmp_path, "training.max_steps=6", f"loss.eta={eta}", name=str(eta)
        )
        for eta in ("auto", 0.3)
    )
    first, second = (
        load_checkpoint(f / "checkpoints/best_model.pt")["network"] for f in (one, other)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
