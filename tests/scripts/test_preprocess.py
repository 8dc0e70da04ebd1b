"""The script that makes a patch store: what it counts, cuts, writes and prints."""

import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

import preprocess_coco_full_dataset as script
from picking.micrographs.mrc import write_mrc
from picking.micrographs.preparation import prepare
from picking.preprocessing.cutting import cut_patches
from picking.stores.patches import TAG_NEGATIVE, TAG_OFF_CENTRE, TAG_OUTLIER, PatchStore
from tests.fixtures.data_sets import DIAMETER_PX, N_PARTICLES, SIZE_PX, SPLITS
from tests.fixtures.patch_stores import (
    PATCH_PX,
    changed_annotations,
    content,
    done,
    metadata_of,
    preprocess,
)


def test_the_counts_and_priors_of_the_metadata_are_those_of_the_index(preprocessed):
    metadata = metadata_of(preprocessed.output)
    totals = dict.fromkeys(("n_labeled", "n_hidden", "n_negative", "n_patches"), 0)
    for split, n_images in SPLITS.items():
        part = metadata["splits"][split]
        index = np.load(preprocessed.output / split / "index.npz")
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


def test_every_patch_is_the_crop_of_its_micrograph_at_its_centre(preprocessed, data_set):
    for split in SPLITS:
        store = PatchStore(preprocessed.output, split)
        assert store.patches.shape[1:] == (PATCH_PX, PATCH_PX)
        for i, name in enumerate(store.names):
            grey = np.asarray(Image.open(data_set.root / split / name))
            image = prepare(grey, (DIAMETER_PX, DIAMETER_PX))
            here = store.micrograph == i
            np.testing.assert_array_equal(
                store.patches[here], cut_patches(image, store.centre[here], PATCH_PX)
            )
            found = store.centre[here & (store.label == 1)]
            known = data_set.centres_px[Path(name).stem]
            assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, known.tolist()))
            negatives = store.centre[here & (store.label == 0)]
            assert cKDTree(known).query(negatives)[0].min() >= PATCH_PX


def test_a_picture_of_every_split_is_written(preprocessed):
    for split in SPLITS:
        with Image.open(preprocessed.output / f"montage_{split}.png") as picture:
            picture.load()
            assert picture.format == "PNG" and min(picture.size) > 500
            assert f"Wrote {preprocessed.output}/montage_{split}.png" in preprocessed.printed
    first, second = (preprocessed.output / f"montage_{s}.png" for s in ("train", "val"))
    assert first.read_bytes() != second.read_bytes()


def test_the_printed_lines_are_those_that_users_know(preprocessed):
    metadata = metadata_of(preprocessed.output)
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
        assert lines in preprocessed.printed


def test_the_shortage_and_what_was_left_out_are_printed(own_data, tmp_path):
    with changed_annotations(own_data, "train") as listed:
        listed["annotations"][0]["bbox"] = [0, 0, 0, 0]
        listed["annotations"][11]["bbox"] = [-90, 10, 20, 20]
        listed["annotations"][22]["image_id"] = 99
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


def test_the_margin_is_the_largest_that_no_centre_of_train_enters(preprocessed, data_set):
    nearest = min(
        min(centres.min(), (np.array(SIZE_PX) - centres).min())
        for name, centres in data_set.centres_px.items()
        if name.startswith("train")
    )
    assert metadata_of(preprocessed.output)["annotated_margin_px"] == nearest == 7
    assert "Annotated margin: 7 px (auto)" in preprocessed.printed
    for split in SPLITS:
        store = PatchStore(preprocessed.output, split)
        negatives = store.centre[store.label == 0]
        assert (negatives >= 7).all() and (negatives <= np.array(SIZE_PX) - 7).all()


@pytest.mark.parametrize("tasks", [["patches"], ["segmentation"]])
def test_annotations_of_val_change_nothing_in_train(own_data, tmp_path, tasks):
    """The margin is train's: one particle at the edge in val moved train's negatives and masks."""
    of_masks = ("--seg-size", "64", "--seg-ignore-margin", "--tasks", *tasks)

    def make(name, *options):
        folders = (tmp_path / name, "--seg-output-dir", tmp_path / name)
        result = preprocess(own_data, *folders, *of_masks, *options)
        assert (result.status, result.err) == (0, "")
        return content(tmp_path / name), metadata_of(tmp_path / name), result.out

    with mock.patch.object(script, "write_mask_montage"):
        before, _, _ = make("before")
        with changed_annotations(own_data, "val") as listed:
            listed["annotations"][0]["bbox"] = [-7, -7, 20, 20]
        after, metadata, printed = make("after")
        assert metadata["annotated_margin_px"] == 7
        (note,) = [line for line in printed.splitlines() if "Note: nearer to an edge" in line]
        assert " 1 " in note and "val" in note
        of_train = {name for name in before if name.startswith("train/")}
        assert of_train and all(before[name] == after[name] for name in of_train)
        _, metadata, _ = make("val alone", "--splits", "val")
        assert metadata["annotated_margin_px"] == 3


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


def write_train_mrcs(own_data, spoil=lambda name, raw: None):
    """Put MRCs in the place of train's JPEGs, dark where the particles are."""
    rng = np.random.default_rng(0)
    for name in ("train_00", "train_01", "train_02"):
        raw = rng.normal(1000, 5, SIZE_PX)
        centres = np.loadtxt(
            own_data / "particle_coordinates" / f"{name}.csv", delimiter=",", skiprows=1
        )
        for x, y in centres[:, :2].astype(int):
            raw[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5] = 900
        spoil(name, raw)
        write_mrc(own_data / "train" / f"{name}.mrc", raw, 1.0)
        (own_data / "train" / f"{name}.jpg").unlink(missing_ok=True)


def test_mrc_micrographs_give_patches_in_the_frame_of_the_annotation(own_data, tmp_path):
    write_train_mrcs(own_data)
    done(own_data, tmp_path / "store", "--splits", "train")
    store = PatchStore(tmp_path / "store", "train")
    middle = store.patches[:, 15:18, 15:18].mean(axis=(1, 2))
    assert middle[store.label == 1].max() < 90 < 100 < middle[store.label == 0].min()


@pytest.mark.filterwarnings("ignore:Data array contains NaN")
@pytest.mark.parametrize("n_workers", [0, 2])
def test_bad_pixels_are_replaced_counted_and_said_once(own_data, tmp_path, n_workers):
    def spoil(name, raw):
        if name != "train_01":
            raw[100:102, 50] = np.nan

    write_train_mrcs(own_data)
    done(own_data, tmp_path / "good", "--splits", "train")
    assert "bad_px_replaced" not in metadata_of(tmp_path / "good")["splits"]["train"]
    write_train_mrcs(own_data, spoil)
    with (own_data / "train" / "train_01.mrc").open("ab") as file:
        file.write(bytes(99))
    result = preprocess(
        own_data, tmp_path / "store", "--splits", "train", "--num-workers", n_workers
    )
    assert result.status == 0
    pixels, trailing = result.err.splitlines()
    assert pixels.startswith("warning: 4 ") and "2 micrographs" in pixels
    assert "train_00.mrc, train_02.mrc" in pixels
    assert trailing.startswith("warning: 99 ") and "train_01.mrc" in trailing
    assert metadata_of(tmp_path / "store")["splits"]["train"]["bad_px_replaced"] == 4
    stores = [PatchStore(tmp_path / folder, "train") for folder in ("good", "store")]
    difference = abs(stores[0].patches.astype(int) - stores[1].patches)
    assert difference.mean() < 0.5


def test_the_real_plan_has_the_known_counts_margin_and_distances(
    empiar10017, tmp_path, monkeypatch
):
    made = {}
    make_plans = script.make_plans

    def kept(*args, **kwargs):
        made["all"] = make_plans(*args, **kwargs)
        return made["all"]

    monkeypatch.setattr(script, "make_plans", kept)
    result = preprocess(empiar10017, tmp_path / "store", "--dry-run", patch=128)
    assert (result.status, result.err) == (0, "")
    assert "Annotated margin: 131 px (auto)" in result.out
    for split, n_images, n in (("train", 6, 3696), ("val", 2, 1299), ("test", 4, 2665)):
        plans = made["all"][1]["patches"][split]
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
