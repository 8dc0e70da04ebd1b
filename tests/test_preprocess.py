"""The script that makes a patch store: what it writes, prints, refuses and goes on with."""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from conftest import N_PARTICLES, SIZE_PX, SPLITS, write_csv, write_data_set
from PIL import Image
from scipy.spatial import cKDTree

import preprocess_coco_full_dataset as script
from picking import micrographs, patches
from picking.errors import run_script
from picking.micrographs import write_mrc
from picking.patches import TAG_NEGATIVE, TAG_OFF_CENTRE, TAG_OUTLIER, PatchStore, cut_patches

ROOT = Path(__file__).parents[1]
PATCH_PX = 32


def preprocess(root, output, *options, patch=PATCH_PX, montage=False):
    """Run the script here; return its exit status, stdout and stderr, without the pictures."""
    command = [
        "preprocess_coco_full_dataset.py", "--data-root", root, "--output-dir", output,
        "--patch-size", patch, "--num-workers", 0, *options,
    ]  # fmt: skip
    handler = signal.getsignal(signal.SIGTERM)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, handler)
        stack.enter_context(mock.patch.object(sys, "argv", list(map(str, command))))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        if not montage:
            stack.enter_context(mock.patch.object(script, "write_montage"))
        left = stack.enter_context(pytest.raises(SystemExit))
        run_script(script.main)
    return SimpleNamespace(status=left.value.code, out=out.getvalue(), err=err.getvalue())


def content(folder):
    """All files of a folder that count: path -> bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def done(root, output, *options):
    """Run the script to the end and return what it wrote."""
    result = preprocess(root, output, *options)
    assert (result.status, result.err) == (0, "")
    return content(output)


def metadata_of(output):
    return json.loads((output / "metadata.json").read_text())


@pytest.fixture(scope="module")
def finished(data_set, tmp_path_factory):
    """A store of the tiny data set with its pictures, and what the script printed."""
    output = tmp_path_factory.mktemp("finished") / "store"
    result = preprocess(data_set.root, output, montage=True)
    assert (result.status, result.err) == (0, "")
    return SimpleNamespace(output=output, printed=result.out)


@pytest.fixture
def own_data(tmp_path):
    """A tiny data set of two splits to be changed by the test."""
    write_data_set(tmp_path / "data", {"train": 3, "val": 2})
    return tmp_path / "data"


# What it writes


def test_the_counts_and_priors_of_the_metadata_are_those_of_the_index(finished):
    metadata = metadata_of(finished.output)
    totals = dict.fromkeys(("n_labeled", "n_hidden", "n_negative", "n_patches"), 0)
    for split, n_images in SPLITS.items():
        part = metadata["splits"][split]
        index = np.load(finished.output / split / "index.npz")
        n_labeled = int(index["labeled"].sum())
        n_hidden = int(((index["label"] == 1) & ~index["labeled"]).sum())
        n_negative = int((index["label"] == 0).sum())
        assert n_labeled + n_hidden == n_images * N_PARTICLES
        assert n_hidden == n_images * int(N_PARTICLES * 0.3)
        counts = {"n_labeled": n_labeled, "n_hidden": n_hidden, "n_negative": n_negative}
        counts["n_patches"] = len(index["label"])
        assert {key: part[key] for key in counts} == counts
        totals = {key: totals[key] + counts[key] for key in totals}
        assert part["actual_prior"] == n_labeled / len(index["label"])
        assert part["pool_prior"] == index["label"].mean()
        assert part["unlabeled_prior"] == index["label"][~index["labeled"]].mean()
        assert part["hide_ratio"] == n_hidden / (n_labeled + n_hidden)
        assert part["neg_per_pos"] == n_negative / (n_labeled + n_hidden)
        assert (part["hide_ratio_requested"], part["neg_per_pos_requested"]) == (0.3, 1.0)
        assert part["n_dropped"] == {"zero_area": 0, "centre_outside": 0}
        names = [m["name"] for m in part["micrographs"]]
        for i, one in enumerate(part["micrographs"]):
            here = index["micrograph"] == i
            assert one["n_particles"] == index["label"][here].sum() == N_PARTICLES
            assert one["n_negative"] == (index["label"][here] == 0).sum()
            assert one["n_negative_short"] == N_PARTICLES - one["n_negative"]
            assert one["size_px"] == list(SIZE_PX)
        assert names == [f"{split}_{i:02}.jpg" for i in range(n_images)]
    assert {key: metadata["total"][key] for key in totals} == totals
    assert metadata["total"]["actual_prior"] == totals["n_labeled"] / totals["n_patches"]


def test_priors_are_those_of_the_methods_where_every_negative_finds_its_place(data_set, tmp_path):
    done(data_set.root, tmp_path / "store", "--neg-rule", "disjoint", "--top-up")
    total = metadata_of(tmp_path / "store")["total"]
    assert total["n_negative_short"] == 0
    priors = [total[key] for key in ("actual_prior", "pool_prior", "unlabeled_prior")]
    assert priors == pytest.approx([0.350, 0.500, 0.231], abs=5e-4)


def test_every_patch_is_the_crop_of_its_micrograph_at_its_centre(finished, data_set):
    for split in SPLITS:
        store = PatchStore(finished.output, split)
        assert store.patches.shape[1:] == (PATCH_PX, PATCH_PX)
        for i, name in enumerate(store.names):
            image = np.asarray(Image.open(data_set.root / split / name))
            here = store.micrograph == i
            np.testing.assert_array_equal(
                store.patches[here], cut_patches(image, store.centre[here], PATCH_PX)
            )
            found = store.centre[here & (store.label == 1)]
            known = data_set.centres_px[Path(name).stem]
            assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, known.tolist()))
            negatives = store.centre[here & (store.label == 0)]
            assert cKDTree(known).query(negatives)[0].min() >= PATCH_PX


def test_a_particle_at_the_border_is_mirrored_and_its_centre_has_not_moved(finished, data_set):
    store = PatchStore(finished.output, "train")
    row = np.flatnonzero((store.centre == (7, 30)).all(axis=1) & (store.micrograph == 0))
    assert len(row) == 1
    image = np.asarray(Image.open(data_set.root / "train" / "train_00.jpg"))
    patch = store.patches[row[0]]
    np.testing.assert_array_equal(patch[9:], image[0:23, 14:46])
    np.testing.assert_array_equal(patch[:9], image[9:0:-1, 14:46])


def test_particles_are_dark_and_negatives_are_not(finished):
    store = PatchStore(finished.output, "train")
    middle = store.patches[:, 12:20, 12:20].mean(axis=(1, 2))
    assert middle[store.label == 1].max() < 110 < middle[store.label == 0].min()


def test_a_picture_of_every_split_is_written(finished):
    for split in SPLITS:
        with Image.open(finished.output / f"montage_{split}.png") as picture:
            picture.load()
            assert picture.format == "PNG" and min(picture.size) > 500
            assert f"Wrote {finished.output}/montage_{split}.png" in finished.printed
    first, second = (finished.output / f"montage_{s}.png" for s in ("train", "val"))
    assert first.read_bytes() != second.read_bytes()


def test_the_printed_lines_are_those_that_users_know(finished):
    metadata = metadata_of(finished.output)
    for split, n_images in SPLITS.items():
        part = metadata["splits"][split]
        n_unlabeled = part["n_hidden"] + part["n_negative"]
        lines = (
            f"Processing {split} split\n"
            f"Total images: {n_images}\n"
            f"  Positive patches: {part['n_labeled']:,}\n"
            f"  Unlabeled patches: {n_unlabeled:,} ({part['n_hidden']:,} hidden positives, "
            f"{part['n_negative']:,} negatives)\n"
            f"  Actual prior (π): {part['actual_prior']:.4f}   "
            f"in the unlabeled set: {part['unlabeled_prior']:.4f}   "
            f"in the pool: {part['pool_prior']:.4f}\n"
        )
        assert lines in finished.printed


def test_large_counts_are_printed_with_commas(capsys):
    rows = np.zeros((516_142, 2))
    plan = SimpleNamespace(
        labelled_px=np.zeros((1_204_331, 2)), hidden_px=rows, n_negative=857_378,
        n_negatives_wanted=857_378, n_outside=0, micrograph=SimpleNamespace(n_zero_area=0),
    )  # fmt: skip
    split = SimpleNamespace(
        name="train", n_images_unannotated=0, n_images_missing=0, n_annotations_orphaned=0
    )
    script.print_counts(split, [plan], [], SimpleNamespace(top_up=False, neg_rule="far"))
    assert capsys.readouterr().out == (
        "\nProcessing train split\n"
        "Total images: 1\n"
        "  Positive patches: 1,204,331\n"
        "  Unlabeled patches: 1,373,520 (516,142 hidden positives, 857,378 negatives)\n"
        "  Actual prior (π): 0.4672   in the unlabeled set: 0.3758   in the pool: 0.6674\n"
    )


def test_the_shortage_and_what_was_left_out_are_printed(own_data, tmp_path):
    path = own_data / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [0, 0, 0, 0]
    content["annotations"][11]["bbox"] = [-90, 10, 20, 20]
    content["annotations"][22]["image_id"] = 99
    path.write_text(json.dumps(content))
    shutil.copy(own_data / "train" / "train_00.jpg", own_data / "train" / "none.jpg")
    result = preprocess(own_data, tmp_path / "store", "--neg-per-pos", 90)
    train = metadata_of(tmp_path / "store")["splits"]["train"]
    assert train["n_dropped"] == {"zero_area": 1, "centre_outside": 1}
    assert train["n_images_unannotated"] == train["n_annotations_orphaned"] == 1
    n_wanted = 90 * (9 + 9 + 9)
    assert train["n_negative_short"] == n_wanted - train["n_negative"] > 0
    for words in (
        f"Shortage: {train['n_negative_short']:,} of {n_wanted:,} negatives find no place by",
        "Dropped annotations (no area or centre outside the image): 2\n",
        "Note: 1 images without annotation, left out\n",
        "Note: 1 annotations of unknown images, left out\n",
    ):
        assert words in result.out


def test_the_margin_is_the_largest_that_no_centre_enters(finished, data_set):
    nearest = min(
        min(centres.min(), (np.array(SIZE_PX) - centres).min())
        for centres in data_set.centres_px.values()
    )
    assert metadata_of(finished.output)["annotated_margin_px"] == nearest == 7
    assert "Annotated margin: 7 px (auto)" in finished.printed
    for split in SPLITS:
        store = PatchStore(finished.output, split)
        negatives = store.centre[store.label == 0]
        assert (negatives >= 7).all() and (negatives <= np.array(SIZE_PX) - 7).all()


def test_hard_negatives_are_tagged_and_only_in_train(data_set, tmp_path):
    done(data_set.root, tmp_path / "store", "--hard-negatives", "0.4", "--annotated-margin", "20")
    metadata = metadata_of(tmp_path / "store")
    for split in SPLITS:
        store = PatchStore(tmp_path / "store", split)
        hard = np.isin(store.tag, (TAG_OFF_CENTRE, TAG_OUTLIER))
        assert metadata["splits"][split]["n_hard_negative"] == hard.sum()
        assert hard.sum() == (SPLITS[split] * 4 if split == "train" else 0)
        assert not store.label[hard].any() and not store.labeled[hard].any()
        assert (store.tag == TAG_NEGATIVE).sum() + hard.sum() == (store.label == 0).sum()
    store = PatchStore(tmp_path / "store", "train")
    for i, name in enumerate(store.names):
        centres = store.centre[(store.micrograph == i) & (store.tag == TAG_OFF_CENTRE)]
        distances = cKDTree(data_set.centres_px[Path(name).stem]).query(centres)[0]
        assert ((distances >= 10) & (distances < 20)).all()


def test_max_images_limits_each_split_for_itself_whatever_the_order(data_set, tmp_path):
    done(data_set.root, tmp_path / "a", "--max-images-train", "2", "--max-images-val", "9")
    metadata = metadata_of(tmp_path / "a")
    assert [metadata["splits"][s]["n_images"] for s in SPLITS] == [2, 2, 1]
    done(data_set.root, tmp_path / "b", "--max-images-train", "1", "--splits", "train")
    one, two = (
        {m["name"] for m in metadata_of(tmp_path / x)["splits"]["train"]["micrographs"]}
        for x in ("b", "a")
    )
    assert len(one) == 1 and one < two


def test_only_the_splits_that_were_asked_for_are_made(data_set, tmp_path):
    written = done(data_set.root, tmp_path / "store", "--splits", "test", "val")
    assert list(metadata_of(tmp_path / "store")["splits"]) == ["val", "test"]
    assert sorted(written) == [
        "metadata.json", "test/index.npz", "test/patches.npy", "val/index.npz", "val/patches.npy"
    ]  # fmt: skip


def test_a_dry_run_prints_the_plan_decodes_nothing_and_writes_nothing(
    data_set, finished, tmp_path, monkeypatch
):
    def refuse(path):
        raise AssertionError("decoded")

    monkeypatch.setattr(micrographs, "read_micrograph", refuse)
    before = content(data_set.root)
    result = preprocess(data_set.root, tmp_path / "store", "--dry-run")
    assert (result.status, result.err) == (0, "")
    counts = finished.printed[: finished.printed.index("Store:")]
    assert result.out.startswith(counts)
    assert list(tmp_path.iterdir()) == [] and content(data_set.root) == before


def test_a_dry_run_tells_the_bytes_needed(data_set, tmp_path):
    options = ("--neg-per-pos", "0", "--dry-run")
    result = preprocess(data_set.root, tmp_path / "store", *options, patch=300)
    n_bytes = sum(SPLITS.values()) * N_PARTICLES * 300**2
    assert f"Store: {n_bytes / 1e9:.2f} GB in {tmp_path}/store" in result.out


def test_mrc_micrographs_give_patches_in_the_frame_of_the_annotation(own_data, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("train_00", "train_01", "train_02"):
        raw = rng.normal(1000, 5, SIZE_PX)
        centres = np.loadtxt(
            own_data / "particle_coordinates" / f"{name}.csv", delimiter=",", skiprows=1
        )
        for x, y in centres[:, :2].astype(int):
            raw[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5] = 900
        write_mrc(own_data / "train" / f"{name}.mrc", raw, 1.0)
        (own_data / "train" / f"{name}.jpg").unlink()
    done(own_data, tmp_path / "store", "--splits", "train")
    store = PatchStore(tmp_path / "store", "train")
    middle = store.patches[:, 15:18, 15:18].mean(axis=(1, 2))
    assert middle[store.label == 1].max() < 60 < 120 < middle[store.label == 0].min()


def test_csvs_serve_where_a_split_has_no_json(own_data, tmp_path):
    from_json = done(own_data, tmp_path / "a")
    shutil.rmtree(own_data / "annotations")
    from_csv = done(own_data, tmp_path / "b")
    for split in ("train", "val"):
        for name in ("patches.npy", "index.npz"):
            assert from_csv[f"{split}/{name}"] == from_json[f"{split}/{name}"]
    assert "3 CSV files in" in metadata_of(tmp_path / "b")["splits"]["train"]["source"]


# The same bytes, whatever happens


@pytest.mark.parametrize("n_workers", [1, 2])
def test_the_store_does_not_depend_on_the_number_of_workers(
    data_set, finished, tmp_path, n_workers
):
    here = done(data_set.root, tmp_path / "store", "--num-workers", n_workers)
    assert here == {k: v for k, v in content(finished.output).items() if not k.endswith(".png")}


SLOWLY = """
import time
import preprocess_coco_full_dataset as script
from picking import micrographs
from picking.errors import run_script
read = micrographs.read_micrograph

def slowly(path):
    time.sleep(0.1)
    return read(path)

micrographs.read_micrograph = slowly
run_script(script.main)
"""


@pytest.mark.parametrize(
    ("end", "n_workers"), [(signal.SIGKILL, 0), (signal.SIGKILL, 2), (signal.SIGTERM, 2)]
)
def test_killed_in_the_middle_and_started_again_it_ends_with_the_same_bytes(
    tmp_path, monkeypatch, end, n_workers
):
    root, output, options = tmp_path / "data", tmp_path / "store", ("--hard-negatives", "0.4")
    write_data_set(root, {"train": 16, "test": 2})
    journal = output / ".journal"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "--data-root", root, "--output-dir", output,
         "--patch-size", str(PATCH_PX), "--num-workers", str(n_workers), *options],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not journal.exists() or journal.read_bytes().count(b'"i"') < 3:
        assert process.poll() is None
    process.send_signal(end)
    said = process.communicate()[1]
    if end == signal.SIGTERM:
        assert process.returncode == 143 and said.startswith("terminated: what was saved is kept")
    assert not (output / "metadata.json").exists()
    n_cut = journal.read_bytes().count(b'"i"')
    assert 3 <= n_cut < 16
    with journal.open("ab") as file:
        file.write(b'{"split": "train", "i"')  # torn by the kill

    read, names = micrographs.read_micrograph, []

    def counted(path):
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(micrographs, "read_micrograph", counted)
    went_on = done(root, output, *options)
    assert len(names) == 16 + 2 - n_cut
    assert went_on == done(root, tmp_path / "at_once", *options)
    assert ".journal" not in went_on


def test_a_finished_store_is_left_alone(data_set, finished):
    stamps = {path: path.stat().st_mtime_ns for path in finished.output.rglob("*")}
    result = preprocess(data_set.root, finished.output)
    assert result.status == 0 and "is complete already: nothing to do" in result.out
    assert stamps == {path: path.stat().st_mtime_ns for path in finished.output.rglob("*")}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--seed", "7"), "seed: 42 there, 7 now"),
        (("--hide-ratio", "0.4"), "hide_ratio: 0.3 there, 0.4 now"),
        (("--neg-per-pos", "2"), "neg_per_pos: 1.0 there, 2.0 now"),
        (("--neg-rule", "disjoint"), "neg_rule: far there, disjoint now"),
        (("--annotated-margin", "9"), "annotated_margin: auto there, 9 now"),
        (("--top-up",), "top_up: False there, True now"),
        (("--hard-negatives",), "hard_negatives: 0.0 there, 0.25 now"),
        (("--splits", "train"), "splits: ['train', 'val', 'test'] there, ['train'] now"),
        (("--max-images-train", "2"), "max_images: "),
        (("--patch-size", "40"), "patch_size: 32 there, 40 now"),
    ],
)
def test_a_store_made_with_other_arguments_is_refused_with_their_names(
    data_set, finished, options, words
):
    before = content(finished.output)
    result = preprocess(data_set.root, finished.output, *options)
    assert result.status == 2 and result.out == ""
    assert re.fullmatch(r"error: .* made with other arguments \(.*\): choose .*\n", result.err)
    assert words in result.err
    assert content(finished.output) == before


def test_a_store_made_from_other_data_is_refused(own_data, tmp_path):
    done(own_data, tmp_path / "store")
    write_csv(own_data / "particle_coordinates" / "train_00.csv", [])  # not read: there is a JSON
    assert preprocess(own_data, tmp_path / "store").status == 0
    Image.new("L", SIZE_PX[::-1]).save(own_data / "train" / "train_00.jpg")
    assert "(images_hash: " in preprocess(own_data, tmp_path / "store").err
    path = own_data / "annotations" / "instances_val.json"
    path.write_text(path.read_text().replace('"iscrowd": 1', '"iscrowd": 0'))
    assert "(annotations_hash: " in preprocess(own_data, tmp_path / "store").err


# Unreadable images


def damage(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if path.stem.startswith("train") else b"no image")
    return whole


def test_unreadable_images_are_named_and_counted_and_stop_it(own_data, tmp_path):
    for name in ("train_00", "train_02"):
        damage(own_data / "train" / f"{name}.jpg")
    result = preprocess(own_data, tmp_path / "store")
    assert result.status == 2
    assert re.fullmatch(
        r"error: 2 of 5 micrographs cannot be read: .*train_00\.jpg cannot be decoded.*; "
        r".*train_02\.jpg .*--skip-unreadable\n",
        result.err,
    )
    assert not (tmp_path / "store" / "metadata.json").exists()


def test_an_image_without_a_readable_header_is_named_before_anything_is_cut(own_data, tmp_path):
    damage(own_data / "val" / "val_01.jpg")
    result = preprocess(own_data, tmp_path / "store")
    assert result.status == 2 and "error: 1 of 2 micrographs cannot be read: " in result.err
    assert "val_01.jpg cannot be read as an image" in result.err
    assert not list((tmp_path / "store").glob("*/patches.npy"))


@pytest.mark.parametrize("name", ["train_00", "train_01", "val_00", "val_01"])
def test_skipping_an_unreadable_image_is_as_if_it_were_not_there(own_data, tmp_path, name):
    path = own_data / name.split("_")[0] / f"{name}.jpg"
    damage(path)
    skipped = done(own_data, tmp_path / "skipped", "--skip-unreadable")
    split = metadata_of(tmp_path / "skipped")["splits"][name.split("_")[0]]
    assert split["skipped_unreadable"] == [f"{name}.jpg"]
    path.unlink()
    shutil.rmtree(own_data / "annotations")  # the CSVs of those that are there serve
    without = done(own_data, tmp_path / "without")
    for kind in ("patches.npy", "index.npz"):
        for folder in ("train", "val"):
            assert skipped[f"{folder}/{kind}"] == without[f"{folder}/{kind}"]


def test_a_skipped_image_that_set_the_margin_moves_the_negatives_of_every_split(own_data, tmp_path):
    """Only `val_01` comes near the edge; the margin of all splits follows from it."""
    for folder, name in (("train", "train_00"), ("val", "val_01")):
        path = own_data / "annotations" / f"instances_{folder}.json"
        listed = json.loads(path.read_text())
        image = next(i["id"] for i in listed["images"] if i["file_name"] == f"{name}.jpg")
        first = next(a for a in listed["annotations"] if a["image_id"] == image)
        first["bbox"] = [-8, 100, 20, 20] if name == "val_01" else [90, 100, 20, 20]
        path.write_text(json.dumps(listed))
    whole = (own_data / "val" / "val_01.jpg").read_bytes()
    (own_data / "val" / "val_01.jpg").write_bytes(whole[: len(whole) // 2])
    done(own_data, tmp_path / "store", "--skip-unreadable")
    margin_px = metadata_of(tmp_path / "store")["annotated_margin_px"]
    assert margin_px > 7
    for split in ("train", "val"):
        store = PatchStore(tmp_path / "store", split)
        for i, name in enumerate(store.names):
            image = np.asarray(Image.open(own_data / split / name))
            here = store.micrograph == i
            np.testing.assert_array_equal(
                store.patches[here], cut_patches(image, store.centre[here], PATCH_PX)
            )
        assert store.centre[store.label == 0].min() >= margin_px


@pytest.mark.parametrize("how", ["mended", "skipped"])
def test_after_an_unreadable_image_both_ways_that_the_error_names_go_on(
    own_data, tmp_path, monkeypatch, how
):
    whole = damage(own_data / "train" / "train_01.jpg")
    assert preprocess(own_data, tmp_path / "store").status == 2
    read, names = micrographs.read_micrograph, []

    def counted(path):
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(micrographs, "read_micrograph", counted)
    if how == "mended":
        (own_data / "train" / "train_01.jpg").write_bytes(whole)
        went_on = done(own_data, tmp_path / "store")
        assert names == ["train_01.jpg"]
        assert went_on == done(own_data, tmp_path / "at_once")
    else:
        went_on = done(own_data, tmp_path / "store", "--skip-unreadable")
        assert names.count("val_00.jpg") == 0
        assert went_on == done(own_data, tmp_path / "at_once", "--skip-unreadable")


def test_what_was_skipped_once_stops_a_run_that_may_not_skip(own_data, tmp_path):
    damage(own_data / "train" / "train_01.jpg")
    with mock.patch.object(script, "describe", side_effect=KeyboardInterrupt):
        result = preprocess(own_data, tmp_path / "store", "--skip-unreadable")
    assert result.status == 130 and "the same command goes on" in result.err
    result = preprocess(own_data, tmp_path / "store")
    assert result.status == 2 and "train_01.jpg cannot be decoded" in result.err
    went_on = done(own_data, tmp_path / "store", "--skip-unreadable")
    assert went_on == done(own_data, tmp_path / "at_once", "--skip-unreadable")


def test_a_split_of_unreadable_images_only_is_refused_even_when_they_are_skipped(
    own_data, tmp_path
):
    for path in (own_data / "train").iterdir():
        damage(path)
    result = preprocess(own_data, tmp_path / "store", "--skip-unreadable")
    assert result.status == 2 and "split 'train' yields no patch" in result.err


# Mistakes


def change_json(split, change):
    def apply(root):
        path = root / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


def write(name, text):
    def apply(root):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    return apply


def remove(*names):
    def apply(root):
        for name in names:
            path = root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return apply


def copy_images(root):
    for i in range(9):
        shutil.copy(root / "train" / "train_00.jpg", root / "train" / f"more_{i}.jpg")


def link_outside(root):
    path = root / "train" / "train_00.jpg"
    path.rename(root.parent / "elsewhere.jpg")
    path.symlink_to(root.parent / "elsewhere.jpg")


def empty_csv_header(root):
    shutil.rmtree(root / "annotations")
    write("particle_coordinates/train_00.csv", "x,y\n1,2\n")(root)


def set_name(name):
    return change_json("train", lambda c: c["images"][0].update(file_name=name))


def scale_boxes(content):
    for box in content["annotations"]:
        box["bbox"] = [4 * value for value in box["bbox"]]


MISTAKES = {
    "no data root": (shutil.rmtree, (), "--data-root .*data is not a folder"),
    "an empty root": (
        remove("train", "val", "annotations", "particle_coordinates"), (),
        "has none of train/, val/ and test/",
    ),
    "an empty split": (
        remove("train/train_00.jpg", "train/train_01.jpg", "train/train_02.jpg"), (),
        "train holds no image",
    ),
    "a split that is not there": (None, ("--splits", "test"), "split 'test' has no folder"),
    "no annotation": (
        remove("annotations", "particle_coordinates"), (),
        "split 'train' has no annotation: looked for .*instances_train.json and for CSVs",
    ),
    "annotated images that are not there": (
        remove("train/train_01.jpg"), (), "2 of 3 annotated images .*missing: train_01.jpg"
    ),
    "images without annotation": (copy_images, (), "9 of 12 images in .* have no annotation"),
    "boxes at another scale": (
        change_json("train", scale_boxes), (),
        r"train_0.*centres lie outside the image of 384 x 320 px \(largest x .*another scale",
    ),
    "another image size": (
        change_json("val", lambda c: c["images"][0].update(width=3838)), (),
        "annotated as 3838 x 320 px, but the image has 384 x 320 px",
    ),
    "a name that climbs out": (set_name("../val/val_00.jpg"), (), "leaves the split's folder"),
    "an absolute name": (set_name("/data/train_00.jpg"), (), "leaves the split's folder"),
    "a link out of the folder": (link_outside, (), "is a link out of"),
    "a name that stands twice": (set_name("train_01.jpg"), (), "'train_01.jpg' stands twice"),
    "two names of one image": (set_name("./train_01.jpg"), (), "are both .*train_01.jpg"),
    "broken JSON": (
        write("annotations/instances_val.json", '{"images": ['), (), "is not valid JSON"
    ),
    "another JSON": (write("annotations/instances_val.json", "[1, 2]"), (), "a COCO file is"),
    "a malformed box": (
        change_json("val", lambda c: c["annotations"][4].update(bbox=[1, 2, 3])), (),
        r"annotations\[4\]: 'bbox' must be four finite numbers",
    ),
    "a malformed CSV": (empty_csv_header, (), "train_00.csv has no column"),
    "a malformed mapping": (write("empiar_ids.csv", "a,b\n"), (), "needs the columns file_name"),
    "a patch larger than the image": (None, ("--patch-size", "321"), "384 x 320 px, smaller than"),
    "a tiny patch": (None, ("--patch-size", "7"), "--patch-size is 7"),
    "a negative hide ratio": (None, ("--hide-ratio", "-0.1"), "--hide-ratio is -0.1"),
    "a hide ratio of one": (None, ("--hide-ratio", "1"), "--hide-ratio is 1.0"),
    "a hide ratio that is no number": (None, ("--hide-ratio", "nan"), "--hide-ratio is nan"),
    "negative negatives": (None, ("--neg-per-pos", "-1"), "--neg-per-pos is -1.0"),
    "endless negatives": (None, ("--neg-per-pos", "inf"), "--neg-per-pos is inf"),
    "hard negatives above all": (None, ("--hard-negatives", "1.5"), "--hard-negatives is 1.5"),
    "negative workers": (None, ("--num-workers", "-1"), "--num-workers is -1"),
    "no images": (None, ("--max-images-val", "0"), "--max-images-... must be 1 or more"),
    "a margin in words": (None, ("--annotated-margin", "wide"), "--annotated-margin is 'wide'"),
    "output among the images": (None, ("--output-dir", "{root}/val/x"), "among the micrographs"),
    "output in the data's place": (None, ("--output-dir", "{root}"), "among the micrographs"),
    "output where a file is": (None, ("--output-dir", "{root}/train/train_00.jpg"), "among the"),
    "output below a file": (None, ("--output-dir", "/dev/null/x"), "a file is in its place"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "options", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_status_2(own_data, tmp_path, spoil, options, words):
    if spoil:
        spoil(own_data)
    before = content(tmp_path)
    options = [option.format(root=own_data) for option in options]
    result = preprocess(own_data, tmp_path / "store", *options)
    assert result.status == 2
    assert re.fullmatch(rf"error: [^\n]*{words}[^\n]*\n", result.err), result.err
    ours = (f"store{os.sep}", "store")
    assert {k: v for k, v in content(tmp_path).items() if not k.startswith(ours)} == before
    assert not (tmp_path / "store" / "metadata.json").exists()


def test_a_disk_that_is_short_is_refused_before_anything_is_cut(own_data, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=20_000))
    result = preprocess(own_data, tmp_path / "store")
    assert result.status == 2
    assert re.fullmatch(r"error: .* GB are needed but 0\.0 GB are free at .*\n", result.err)
    assert not list((tmp_path / "store").glob("*/*"))


def test_what_is_allocated_already_is_not_asked_of_the_disk_again(own_data, tmp_path, monkeypatch):
    whole = damage(own_data / "val" / "val_01.jpg")
    (own_data / "val" / "val_01.jpg").write_bytes(whole[: len(whole) // 2])
    assert preprocess(own_data, tmp_path / "store").status == 2
    (own_data / "val" / "val_01.jpg").write_bytes(whole)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=20_000))
    assert preprocess(own_data, tmp_path / "store").status == 0


def no_room(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_disk_that_runs_full_is_a_sentence_and_the_next_run_goes_on(
    own_data, tmp_path, monkeypatch, call
):
    with monkeypatch.context() as patched:
        patched.setattr(patches.os, call, no_room)
        result = preprocess(own_data, tmp_path / "store")
    assert result.status == 2
    assert re.fullmatch(r"error: the disk is full at .*\n", result.err)
    assert done(own_data, tmp_path / "store") == done(own_data, tmp_path / "at_once")


def test_an_output_folder_that_is_read_only_is_a_sentence(own_data, tmp_path, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = preprocess(own_data, tmp_path / "store")
    assert result.status == 2
    assert result.err.startswith(f"error: no permission to use {tmp_path}/store: ")


def test_an_unknown_option_shows_the_usage_and_leaves_with_2(own_data, tmp_path):
    result = preprocess(own_data, tmp_path / "store", "--hide_ratio", "0.3")
    assert result.status == 2 and "unrecognized arguments: --hide_ratio" in result.err


# The real micrographs


def test_the_real_plan_has_the_known_counts_margin_and_distances(
    empiar10017, tmp_path, monkeypatch
):
    made = {}
    make_plans = script.make_plans

    def kept(*args, **kwargs):
        made["plans"], made["settings"] = make_plans(*args, **kwargs)
        return made["plans"], made["settings"]

    monkeypatch.setattr(script, "make_plans", kept)
    result = preprocess(empiar10017, tmp_path / "store", "--dry-run", patch=128)
    assert (result.status, result.err) == (0, "")
    assert "Annotated margin: 131 px (auto)" in result.out
    for split, n_images, n in (("train", 6, 3696), ("val", 2, 1299), ("test", 4, 2665)):
        plans = made["plans"][split]
        assert len(plans) == n_images and f"Processing {split} split" in result.out
        assert sum(len(p.labelled_px) + len(p.hidden_px) for p in plans) == n
        for one in plans:
            assert one.size_px == (4096, 4096)
            assert len(one.hidden_px) == int(len(one.micrograph.centres_px) * 0.3)
            tree = cKDTree(one.micrograph.centres_px)
            assert tree.query(one.negatives_px)[0].min() >= 162  # 1.5 times 108 px
            assert one.negatives_px.min() >= 131 and one.negatives_px.max() <= 4096 - 131
            assert cKDTree(one.negatives_px).query(one.negatives_px, k=2)[0][:, 1].min() >= 64
        # They are dense: most negatives find no place, and the rule is not relaxed
        n_negative = sum(len(p.negatives_px) for p in plans)
        assert n_negative < n / 2 and f"Shortage: {n - n_negative:,} of {n:,}" in result.out
