"""The script that makes stores: the segmentation store, alone and in one pass with the patches."""

import json
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from picking.mask_values import IGNORE
from picking.micrographs import reading
from picking.micrographs.mrc import write_mrc
from picking.micrographs.preparation import PREPARATION, prepare, scale_micrograph
from picking.micrographs.reading import read_scaled
from picking.stores.segmentation import SegmentationStore
from tests.fixtures.data_sets import DIAMETER_PX, N_PARTICLES, SIZE_PX, SPLITS
from tests.fixtures.patch_stores import (
    BOTH,
    SIDE_PX,
    changed_annotations,
    content,
    damage,
    metadata_of,
    segment,
    segmented,
)

SEEN_PX = (SIDE_PX, SIDE_PX)


def prepared(grey):
    """An image as the store must hold it, of its grey at that size."""
    return prepare(grey, [DIAMETER_PX * SIDE_PX / n for n in SIZE_PX])


def note_how(monkeypatch):
    """Return the list to which (how, name) of every micrograph is added when it is read."""
    reads = []
    for how in ("read_grey", "read_scaled"):
        read = getattr(reading, how)

        def noted(path, *args, how=how, read=read):
            reads.append((how, path.name))
            return read(path, *args)

        monkeypatch.setattr(reading, how, noted)
    return reads


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="session")
def alone(data_set, tmp_path_factory):
    """The segmentation store of the tiny data set, its pictures and what was printed."""
    folder = tmp_path_factory.mktemp("alone")
    result = segment(data_set.root, folder, montage=True)
    assert (result.status, result.err) == (0, "")
    return SimpleNamespace(output=folder / "seg", folder=folder, printed=result.out)


@pytest.fixture(scope="session")
def both(data_set, tmp_path_factory):
    """Both stores of the tiny data set, made in one pass: the folder and its content."""
    folder = tmp_path_factory.mktemp("both")
    return SimpleNamespace(folder=folder, content=segmented(data_set.root, folder, tasks=BOTH))


# What is written


def test_every_image_is_its_micrograph_scaled_and_every_mask_its_particles(alone, data_set):
    for split, n_images in SPLITS.items():
        store = SegmentationStore(alone.output / split)
        index = json.loads((alone.output / split / "index.json").read_text())
        assert store.names == store.micrographs == [f"{split}_{i:02}.jpg" for i in range(n_images)]
        assert store.n_particles.tolist() == [N_PARTICLES] * n_images
        assert index["size_px"] == store.size_px == SIDE_PX
        for i, name in enumerate(store.names):
            image = prepared(read_scaled(data_set.root / split / name, SEEN_PX))
            np.testing.assert_array_equal(store.images[i], image)
            scale = np.array([SIDE_PX / n for n in SIZE_PX])
            y, x = ((np.arange(SIDE_PX) + 0.5) / s for s in scale)
            disks = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
            for centre_y, centre_x in data_set.centres_px[Path(name).stem]:
                distance = np.hypot(y[:, None] - centre_y, x - centre_x)
                disks[distance <= DIAMETER_PX / 2] = 1
            np.testing.assert_array_equal(store.masks[i], disks)
            listed = index["images"][i]
            assert listed["original_size_px"] == list(SIZE_PX) and listed["tile"] is None
            np.testing.assert_allclose(listed["scale"], scale)
            assert listed["checksum"] == zlib.crc32(image.tobytes())


def test_the_counts_of_the_metadata_are_those_of_the_masks(data_set, tmp_path):
    options = ("--resize", "pad", "--seg-tiles", 2, "--seg-ignore-margin")
    segmented(data_set.root, tmp_path, *options)
    metadata = metadata_of(tmp_path / "seg")
    assert metadata["annotated_margin_px"] == 7
    assert (metadata["seg_size_px"], metadata["resize"], metadata["tiles"]) == (SIDE_PX, "pad", 2)
    assert metadata["preparation"] == metadata["made_from"]["preparation"] == PREPARATION
    totals = dict.fromkeys(("n_images", "n_micrographs", "n_particles"), 0)
    for split, n_micrographs in SPLITS.items():
        store, part = SegmentationStore(tmp_path / "seg" / split), metadata["splits"][split]
        counts = {
            "n_images": 4 * n_micrographs,
            "n_micrographs": n_micrographs,
            "n_particles": N_PARTICLES * n_micrographs,
        }
        assert {key: part[key] for key in counts} == counts
        assert len(store) == counts["n_images"]
        assert store.n_particles.sum() == counts["n_particles"]
        totals = {key: totals[key] + counts[key] for key in totals}
        counted = store.masks[store.masks != IGNORE]
        assert part["positive_share"] == pytest.approx(counted.mean())
        assert part["ignored_share"] == pytest.approx((store.masks == IGNORE).mean())
        assert part["ignored_share"] > 0.1
        assert part["n_dropped"] == {"zero_area": 0, "centre_outside": 0}
        assert part["skipped_unreadable"] == [] and part["n_images_unannotated"] == 0
    assert {key: metadata["total"][key] for key in totals} == totals


def test_what_is_in_the_store_and_what_is_dropped_is_printed(own_data, tmp_path):
    with changed_annotations(own_data, "train") as listed:
        listed["annotations"][0]["bbox"] = [0, 0, 0, 0]
        listed["annotations"][11]["bbox"] = [-90, 10, 20, 20]
    shutil.copy(own_data / "train" / "train_00.jpg", own_data / "train" / "none.jpg")
    result = segment(own_data, tmp_path, "--seg-tiles", 2)
    train = metadata_of(tmp_path / "seg")["splits"]["train"]
    assert train["n_dropped"] == {"zero_area": 1, "centre_outside": 1}
    assert train["n_images_unannotated"] == 1 and train["n_particles"] == 28
    for words in (
        "Segmentation of train split\nTotal micrographs: 3\n  Images: 12 of 64 x 64 px\n"
        "  Particles: 28\n  Dropped annotations (no area or centre outside the image): 2\n"
        "  Note: 1 images without annotation, left out\n",
        f"Split train: particles take {train['positive_share']:.1%} of the pixels; 0.0% of all",
        "Annotated margin: ",
        f"Finished {tmp_path}/seg: 20 images with masks\n",
    ):
        assert words in result.out
    assert "Processing" not in result.out and not (tmp_path / "patches").exists()


def test_micrographs_that_are_enlarged_are_counted(data_set, tmp_path):
    result = segment(data_set.root, tmp_path, "--seg-tiles", 6, "--dry-run")
    assert "Note: 3 micrographs are smaller than that and are enlarged" in result.out


def test_a_picture_of_every_split_is_written(alone):
    for split in SPLITS:
        with Image.open(alone.output / f"montage_{split}.png") as picture:
            shown = np.asarray(picture.convert("RGB")).astype(int)
            assert picture.format == "PNG" and min(picture.size) > 400
        assert (shown[..., 1] - shown[..., 0] > 100).sum() > 100  # outlines
        assert f"Wrote {alone.output}/montage_{split}.png" in alone.printed


def test_mrc_micrographs_and_their_masks_have_the_same_frame(own_data, tmp_path):
    for path in (own_data / "train").glob("*.jpg"):
        write_mrc(path.with_suffix(".mrc"), np.asarray(Image.open(path)).astype(float), 1.0)
        path.unlink()
    segmented(own_data, tmp_path, "--splits", "train", "--seg-size", 160)
    store = SegmentationStore(tmp_path / "seg" / "train")
    for image, mask in zip(store.images, store.masks, strict=True):
        assert image[mask == 1].mean() < image[mask == 0].mean() - 30


def darkness(image, mask):
    """How much darker particles are than the rest, in deviations."""
    return (image[mask == 0].mean() - image[mask == 1].mean()) / image.std()


def test_particles_of_real_micrographs_are_darker_than_the_background(empiar10017, tmp_path):
    segmented(empiar10017, tmp_path, "--splits", "val", "--seg-size", 384)
    store = SegmentationStore(tmp_path / "seg" / "val")
    assert store.n_particles.tolist() == [666, 633]
    inner = slice(30, -30)  # the micrographs have streaks at their edges
    for image, mask in zip(
        store.images[:, inner, inner], store.masks[:, inner, inner], strict=True
    ):
        assert darkness(image, mask) > 0.15
        for wrong in (mask[::-1], mask[:, ::-1], mask.T):  # masks in any other frame
            assert abs(darkness(image, wrong)) < darkness(image, mask) / 3


# One pass


def test_one_pass_gives_the_patches_and_the_masks_of_two(both, preprocessed, alone):
    made = content(both.folder)
    for name, whole in content(preprocessed.output).items():
        assert name.endswith(".png") or made[f"patches/{name}"] == whole
    for split in SPLITS:
        one, two = (SegmentationStore(x / split) for x in (both.folder / "seg", alone.output))
        np.testing.assert_array_equal(one.masks, two.masks)
        assert one.names == two.names and one.n_particles.tolist() == two.n_particles.tolist()
        # Whole and reduced decoding, of what is mostly noise
        assert np.corrcoef(one.images.ravel(), two.images.ravel())[0, 1] > 0.95
        assert np.abs(one.images.astype(int) - two.images).mean() < 9


def test_one_pass_decodes_every_micrograph_once(data_set, both, tmp_path, monkeypatch):
    reads = note_how(monkeypatch)
    assert segmented(data_set.root, tmp_path, tasks=BOTH) == both.content
    names = [f"{split}_{i:02}.jpg" for split, n in SPLITS.items() for i in range(n)]
    assert sorted(reads) == sorted(("read_grey", name) for name in names)
    store = SegmentationStore(tmp_path / "seg" / "val")
    whole = reading.read_grey(data_set.root / "val" / "val_01.jpg")
    np.testing.assert_array_equal(store.images[1], prepared(scale_micrograph(whole, SEEN_PX)))


def test_for_the_segmentation_alone_jpegs_are_decoded_at_reduced_scale(
    data_set, alone, tmp_path, monkeypatch
):
    reads = note_how(monkeypatch)
    segmented(data_set.root, tmp_path)
    assert {how for how, _ in reads} == {"read_scaled"} and len(reads) == 6
    decoded = [metadata_of(x)["jpegs_decoded"] for x in (tmp_path / "seg", alone.output)]
    assert decoded == ["at reduced scale"] * 2


def test_the_stores_do_not_depend_on_workers_or_the_order_of_tasks(data_set, both, tmp_path):
    made = segmented(data_set.root, tmp_path, "--num-workers", 2, tasks=BOTH[::-1])
    assert made == both.content


def test_a_finished_store_is_left_alone_while_the_other_is_made(data_set, both, tmp_path):
    segmented(data_set.root, tmp_path, tasks=["patches"])
    before = stamps(tmp_path / "patches")
    result = segment(data_set.root, tmp_path, tasks=BOTH)
    assert result.status == 0
    assert result.out.startswith(f"{tmp_path}/patches is complete already: nothing to do\n")
    assert "Processing" not in result.out and f"Finished {tmp_path}/seg" in result.out
    assert stamps(tmp_path / "patches") == before
    assert content(tmp_path) == both.content  # as if made in one pass
    before = stamps(tmp_path)
    for tasks in (BOTH, ["segmentation"]):
        result = segment(data_set.root, tmp_path, tasks=tasks)
        assert result.status == 0 and f"{tmp_path}/seg is complete already" in result.out
    assert stamps(tmp_path) == before


def test_a_dry_run_of_both_prints_both_plans_decodes_nothing_and_writes_nothing(
    data_set, preprocessed, tmp_path, monkeypatch
):
    reads, before = note_how(monkeypatch), content(data_set.root)
    result = segment(data_set.root, tmp_path / "x", "--dry-run", tasks=BOTH)
    assert (result.status, result.err) == (0, "")
    counts = preprocessed.printed[: preprocessed.printed.index("\nAnnotated margin")]
    assert result.out.startswith(counts)
    n_bytes = 2 * sum(SPLITS.values()) * SIDE_PX**2
    for words in (
        "Segmentation of val split\nTotal micrographs: 2\n",
        f"Store: 0.00 GB in {tmp_path}/x/patches\n",
        f"Store: {n_bytes / 1e9:.2f} GB in {tmp_path}/x/seg\n",
    ):
        assert words in result.out
    assert list(tmp_path.iterdir()) == reads == [] and content(data_set.root) == before


# Stopped and gone on with


def test_rows_that_either_store_lost_are_done_again(own_data, tmp_path, monkeypatch):
    """Of train_02 as in a power cut; val_00 is missing in a journal, as after a kill."""
    whole = damage(own_data / "val" / "val_01.jpg")
    assert segment(own_data, tmp_path / "out", tasks=BOTH).status == 2
    (own_data / "val" / "val_01.jpg").write_bytes(whole)
    for name in ("patches/train/patches.npy", "seg/train/masks.npy"):
        with (tmp_path / "out" / name).open("r+b") as file:
            file.seek(-1000, 2)
            file.write(b"\7" * 1000)
    journal = tmp_path / "out" / "seg" / ".journal"
    kept = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(kept[:-1]) + kept[-1][:9])
    reads = note_how(monkeypatch)
    result = segment(own_data, tmp_path / "out", tasks=BOTH)
    assert result.status == 0 and "3 micrographs were there already; those of 1 " in result.out
    assert reads == [("read_grey", f"{n}.jpg") for n in ("train_02", "val_00", "val_01")]
    assert content(tmp_path / "out") == segmented(own_data, tmp_path / "at_once", tasks=BOTH)


def test_a_store_begun_for_other_tasks_is_not_gone_on_with(own_data, tmp_path):
    """Its images would be decoded at two scales."""
    damage(own_data / "val" / "val_01.jpg")
    assert segment(own_data, tmp_path).status == 2
    result = segment(own_data, tmp_path, tasks=BOTH)
    assert result.status == 2
    words = "tasks: ['segmentation'] there, ['patches', 'segmentation'] now"
    assert words in result.err and "choose another output folder" in result.err


@pytest.mark.parametrize(
    "options",
    ["--seg-size 32", "--resize pad", "--seg-tiles 2", "--seg-disk 0.6", "--seg-ignore-margin",
     "--splits train", "--max-images train=2"],
)  # fmt: skip
def test_a_store_made_with_other_arguments_is_refused_with_their_names(data_set, alone, options):
    before, (flag, *_) = content(alone.output), options.split()
    result = segment(data_set.root, alone.folder, *options.replace(" train=", "-train ").split())
    assert result.status == 2 and result.out == ""
    assert f"{flag[2:].replace('-', '_')}: " in result.err and content(alone.output) == before


def test_arguments_that_do_not_touch_images_or_masks_make_no_other_store(data_set, alone):
    options = ("--seed", 7, "--annotated-margin", 3, "--hide-ratio", 0.5)
    result = segment(data_set.root, alone.folder, *options)
    assert result.status == 0 and "is complete already" in result.out


# Unreadable images


@pytest.mark.parametrize(("name", "header"), [("train_00", 0), ("train_01", 1), ("val_01", 0)])
def test_skipping_an_unreadable_image_is_as_if_it_were_not_there(own_data, tmp_path, name, header):
    split = name.split("_")[0]
    path = own_data / split / f"{name}.jpg"
    damage(path, header)
    skipped = segmented(own_data, tmp_path / "skipped", "--skip-unreadable", tasks=BOTH)
    for store in ("patches", "seg"):
        part = metadata_of(tmp_path / "skipped" / store)["splits"][split]
        assert part["skipped_unreadable"] == [path.name]
    path.unlink()
    (own_data / "particle_coordinates" / f"{name}.csv").unlink()
    shutil.rmtree(own_data / "annotations")  # the CSVs of those that are there serve
    without = segmented(own_data, tmp_path / "without", tasks=BOTH)
    arrays = [one for one in skipped if one.endswith((".npy", ".npz", "index.json"))]
    assert len(arrays) == 2 * 5 and all(skipped[one] == without[one] for one in arrays)


def test_the_skipped_image_of_a_finished_store_is_skipped_in_the_other(own_data, tmp_path):
    damage(own_data / "train" / "train_01.jpg")
    segmented(own_data, tmp_path, "--skip-unreadable", tasks=["patches"])
    segmented(own_data, tmp_path, "--skip-unreadable", tasks=BOTH)
    store = SegmentationStore(tmp_path / "seg" / "train")
    assert store.names == ["train_00.jpg", "train_02.jpg"]


# The disk


def test_the_room_for_both_stores_together_is_asked_of_the_disk(own_data, tmp_path, monkeypatch):
    n_bytes = 2 * 5 * SIDE_PX**2  # of the masks and images; patches take more than half of it
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=n_bytes + n_bytes // 2)
    )
    result = segment(own_data, tmp_path / "one")
    assert result.status == 0
    result = segment(own_data, tmp_path / "both", tasks=BOTH)
    assert result.status == 2 and "GB are needed but 0.0 GB are free" in result.err
    assert not list((tmp_path / "both").glob("*/*/*.npy"))
