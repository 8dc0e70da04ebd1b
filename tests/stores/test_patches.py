"""Planning, cutting, the journal and the store; and the pool of processes that they share."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from picking.errors import UserError
from picking.formats import micrographs
from picking.formats.annotations import Micrograph
from picking.parallel import ordered_map
from picking.preprocessing import cutting
from picking.preprocessing.cutting import cut_patches
from picking.preprocessing.negatives import GRID_STEP_PX
from picking.preprocessing.plan import PlanSettings, plan_split
from picking.stores.journal import Journal
from picking.stores.patches import (
    TAG_NEGATIVE,
    TAG_OFF_CENTRE,
    TAG_OUTLIER,
    TAG_PARTICLE,
    PatchStore,
)
from picking.stores.writer import fill_split
from tests.fixtures.data_sets import picture, some_centres

SIZE_PX = (240, 300)
PATCH_PX = 32


def settings(**changes):
    values = dict(
        patch_size_px=PATCH_PX,
        hide_ratio=0.3,
        neg_per_pos=1.0,
        seed=42,
        neg_rule="far",
        margin_px=0,
        top_up=False,
        hard_share=0.0,
    )
    return PlanSettings(**(values | changes))


def record(name, centres_px, folder=Path("none"), diameter_px=20.0):
    centres = np.array(centres_px, dtype=float).reshape(-1, 2)
    diameters = np.full(len(centres), diameter_px)
    return Micrograph(folder / name, name, centres, diameters, None, 0, None)


def records(n_particles=(8, 5, 11), seed=0, folder=Path("none")):
    rng = np.random.default_rng(seed)
    return [
        record(f"{i}.png", some_centres(rng, n, SIZE_PX), folder) for i, n in enumerate(n_particles)
    ]


def plan(found, split="train", n_workers=0, **changes):
    return plan_split(split, found, [SIZE_PX] * len(found), settings(**changes), n_workers)


def arrays(one):
    return [
        one.labelled_px, one.hidden_px, one.negatives_px, one.off_centre_px,
        one.outlier_candidates_px,
    ]  # fmt: skip


def assert_same_plans(one, other):
    for a, b in zip(one, other, strict=True):
        assert a.micrograph.name == b.micrograph.name and a.n_outliers == b.n_outliers
        for rows, others in zip(arrays(a), arrays(b), strict=True):
            np.testing.assert_array_equal(rows, others)


def nearest(points, centres):
    """Distance of every point to the nearest of the centres."""
    return np.linalg.norm(points[:, None] - centres, axis=-1).min(axis=1)


def spacing(points):
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    return distances[np.triu_indices(len(points), 1)].min()


# Planning


@pytest.mark.parametrize(
    ("n", "ratio", "hidden"), [(10, 0.3, 3), (9, 0.3, 2), (3, 0.3, 0), (7, 0.0, 0), (12, 0.95, 11)]
)
def test_of_each_micrograph_int_n_times_h_positives_are_hidden(n, ratio, hidden):
    found = records([n, n])
    for one in plan(found, hide_ratio=ratio):
        assert len(one.hidden_px) == hidden and len(one.labelled_px) == n - hidden
        together = np.concatenate([one.labelled_px, one.hidden_px])
        assert sorted(together.tolist()) == sorted(one.micrograph.centres_px.tolist())


def test_a_plan_depends_on_its_own_micrograph_alone():
    found = records()
    whole = plan(found)
    assert_same_plans(plan(found[1:]), whole[1:])
    assert_same_plans(plan(found[::-1]), whole[::-1])


def test_a_plan_does_not_depend_on_the_number_of_workers():
    found = records()
    assert_same_plans(plan(found, n_workers=2, hard_share=0.5), plan(found, hard_share=0.5))


def test_another_seed_another_split_or_another_name_is_another_plan():
    centres = records([11])[0].centres_px
    first = plan([record("a.png", centres)])
    for other in (
        plan([record("a.png", centres)], seed=43),
        plan([record("a.png", centres)], split="val"),
        plan([record("b.png", centres)]),
    ):
        assert (first[0].hidden_px != other[0].hidden_px).any()
        assert (first[0].negatives_px[0] != other[0].negatives_px[0]).any()


def test_negatives_are_far_apart_distinct_and_inside_the_margin():
    for one in plan(records(), margin_px=21, neg_per_pos=0.5):
        centres = one.micrograph.centres_px
        assert len(one.negatives_px) == round(0.5 * len(centres))
        assert nearest(one.negatives_px, centres).min() >= PATCH_PX
        assert spacing(one.negatives_px) >= PATCH_PX / 2
        assert (one.negatives_px >= 21).all()
        assert (one.negatives_px <= np.array(SIZE_PX) - 21).all()


def test_negatives_keep_away_from_a_particle_whose_centre_is_outside():
    centres = [*some_centres(np.random.default_rng(0), 11, SIZE_PX), (-6.0, 150.0)]
    (one,) = plan([record("a.png", centres)], neg_per_pos=100)
    assert one.n_outside == 1 and len(one.labelled_px) + len(one.hidden_px) == 11
    assert nearest(one.negatives_px, np.array([[-6.0, 150.0]])).min() >= PATCH_PX


@pytest.mark.parametrize("rule", ["far", "disjoint"])
def test_a_shortage_is_counted_and_never_relaxed(rule):
    (one,) = plan(records([11]), neg_per_pos=30, neg_rule=rule)
    assert one.n_negatives_wanted == 330
    assert 10 < len(one.negatives_px) == one.n_negative < 330
    assert spacing(one.negatives_px) >= PATCH_PX / 2
    if rule == "far":
        assert nearest(one.negatives_px, one.micrograph.centres_px).min() >= PATCH_PX


def crowded_and_roomy():
    rng = np.random.default_rng(1)
    crowd = np.stack(np.meshgrid(np.arange(10, 240, 28), np.arange(10, 300, 28)), -1).reshape(-1, 2)
    return [
        record("crowd.png", crowd),
        record("roomy_a.png", some_centres(rng, 4, SIZE_PX)),
        record("roomy_b.png", some_centres(rng, 5, SIZE_PX)),
    ]


def test_top_up_takes_what_is_missing_from_micrographs_with_room():
    found = crowded_and_roomy()
    plain, topped = plan(found, neg_per_pos=0.6), plan(found, neg_per_pos=0.6, top_up=True)
    wanted = sum(p.n_negatives_wanted for p in plain)
    assert sum(p.n_negative for p in plain) < wanted == sum(p.n_negative for p in topped)
    assert plain[0].n_negative == topped[0].n_negative == 0
    extra = [t.n_negative - p.n_negative for t, p in zip(topped[1:], plain[1:], strict=True)]
    assert abs(extra[0] - extra[1]) <= 1
    for before, after in zip(plain, topped, strict=True):
        np.testing.assert_array_equal(
            after.negatives_px[: len(before.negatives_px)], before.negatives_px
        )
        np.testing.assert_array_equal(after.hidden_px, before.hidden_px)


def test_top_up_ends_when_there_is_no_room_anywhere():
    topped = plan(crowded_and_roomy(), neg_per_pos=20, top_up=True)
    wanted = sum(p.n_negatives_wanted for p in topped)
    assert sum(p.n_negative for p in topped) < wanted
    for one in topped[1:]:
        assert nearest(one.negatives_px, one.micrograph.centres_px).min() >= PATCH_PX


@pytest.mark.parametrize("rule", ["far", "disjoint"])
def test_hard_negatives_miss_particles_by_little_and_are_no_duplicates(rule):
    # Particles larger than the patch: by `disjoint`, ordinary negatives come as near.
    rng = np.random.default_rng(2)
    found = [record("a.png", some_centres(rng, 10, SIZE_PX), diameter_px=44.0)]
    (one,) = plan(found, hard_share=0.5, neg_rule=rule, patch_size_px=12, neg_per_pos=6)
    assert len(one.off_centre_px) == one.n_outliers == 15 and one.n_negative == 60
    assert len(one.outlier_candidates_px) == 4 * 15
    distances = nearest(one.off_centre_px, found[0].centres_px)
    assert (distances >= 22).all() and (distances < 44).all()
    together = [one.negatives_px, one.off_centre_px, one.outlier_candidates_px]
    assert spacing(np.concatenate(together)) >= 6


@pytest.mark.parametrize("split", ["val", "test"])
def test_hard_negatives_are_for_train_only(split):
    (one,) = plan(records([10]), split=split, hard_share=0.5)
    assert len(one.negatives_px) == 10
    assert one.n_outliers == len(one.off_centre_px) == len(one.outlier_candidates_px) == 0


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(UserError, match=r"0\.png is 300 x 240 px, smaller than --patch-size 241"):
        plan(records([3]), patch_size_px=241)
    assert plan(records([3]), patch_size_px=240)[0].patch_size_px == 240


# Cutting


def mirrored(i, n):
    """Index i beyond an axis of length n, mirrored without repeating the edge."""
    i = abs(i)
    return i if i < n else 2 * (n - 1) - i


@pytest.mark.parametrize("patch", [8, 9, 32, 60])
def test_a_patch_is_the_crop_around_its_centre_mirrored_beyond_the_edge(patch):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 77), dtype=np.uint8)
    centres = np.array([[30, 40], [0, 0], [59, 76], [3, 70], [58, 1]])
    cut = cut_patches(image, centres, patch)
    assert cut.shape == (5, patch, patch) and cut.dtype == np.uint8
    for one, (y, x) in zip(cut, centres, strict=True):
        assert one[patch // 2, patch // 2] == image[y, x]  # the centre has not moved
        rows = [mirrored(y - patch // 2 + k, 60) for k in range(patch)]
        columns = [mirrored(x - patch // 2 + k, 77) for k in range(patch)]
        np.testing.assert_array_equal(one, image[np.ix_(rows, columns)])


def test_centres_between_pixels_go_to_the_nearest_one_of_the_image():
    image = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50).astype(np.uint8)
    centres = np.array([[10.4, 20.6], [39.7, 49.9], [0.0, 0.3]])
    assert cut_patches(image, centres, 8)[:, 4, 4].tolist() == [
        image[10, 21], image[39, 49], image[0, 0]
    ]  # fmt: skip


MADE_FROM = {"splits": ["train"], "seed": 42, "hide_ratio": 0.3}


@pytest.fixture
def images(tmp_path):
    """Records of three micrographs on disk."""
    found = records(folder=tmp_path / "images")
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(3)
    for one in found:
        Image.fromarray(picture(rng, one.centres_px, SIZE_PX)).save(one.path)
    return found


def cut(folder, plans, n_workers=0):
    folder.mkdir(exist_ok=True)
    journal = Journal(folder / ".journal", MADE_FROM)
    unreadable = fill_split([cutting.filling(folder / "train", plans, journal)], n_workers)
    return SimpleNamespace(journal=journal, unreadable=unreadable)


def content(folder):
    return {path.name: path.read_bytes() for path in (folder / "train").iterdir()}


def test_rows_follow_the_plan_and_every_patch_is_the_crop_at_its_centre(tmp_path, images):
    plans = plan(images, hard_share=0.5)
    assert not cut(tmp_path / "store", plans).unreadable
    rows = np.load(tmp_path / "store" / "train" / "patches.npy", mmap_mode="r")
    index = np.load(tmp_path / "store" / "train" / "index.npz")
    assert len(rows) == sum(p.n_rows for p in plans) == len(index["tag"])
    for i, one in enumerate(plans):
        here = index["micrograph"] == i
        image = np.asarray(Image.open(one.micrograph.path))
        np.testing.assert_array_equal(
            rows[here], cut_patches(image, index["centre"][here], PATCH_PX)
        )
        for tag, labeled, planned in (
            (TAG_PARTICLE, True, one.labelled_px),
            (TAG_PARTICLE, False, one.hidden_px),
            (TAG_NEGATIVE, False, one.negatives_px),
            (TAG_OFF_CENTRE, False, one.off_centre_px),
        ):
            kind = here & (index["tag"] == tag) & (index["labeled"] == labeled)
            np.testing.assert_array_equal(index["centre"][kind], planned.astype(np.float32))
        outliers = index["centre"][here & (index["tag"] == TAG_OUTLIER)]
        assert len(outliers) == one.n_outliers > 0
        candidates = {tuple(c) for c in one.outlier_candidates_px.tolist()}
        assert {tuple(c) for c in outliers.tolist()} <= candidates
    np.testing.assert_array_equal(index["label"], index["tag"] == TAG_PARTICLE)
    assert not (index["labeled"] & (index["label"] == 0)).any()


def test_outliers_are_the_candidates_that_look_unlike_the_others(tmp_path, images):
    one = plan(images, hard_share=1.0)[2]
    assert one.n_outliers == 6 and len(one.outlier_candidates_px) > 12
    ice = one.outlier_candidates_px[7:9]
    image = np.array(Image.open(one.micrograph.path))
    for y, x in ice.astype(int):
        image[max(0, y - 20) : y + 20, max(0, x - 20) : x + 20] = 255
    Image.fromarray(image).save(one.micrograph.path)
    cut(tmp_path / "store", [one])
    index = np.load(tmp_path / "store" / "train" / "index.npz")
    chosen = index["centre"][index["tag"] == TAG_OUTLIER].tolist()
    assert len(chosen) == 6 and all(centre in chosen for centre in ice.tolist())


@pytest.mark.parametrize("n_workers", [1, 2])
def test_the_store_does_not_depend_on_the_number_of_workers(tmp_path, images, n_workers):
    plans = plan(images, hard_share=0.5)
    alone = cut(tmp_path / "alone", plans)
    shared = cut(tmp_path / "shared", plans, n_workers)
    assert content(tmp_path / "alone") == content(tmp_path / "shared")
    assert alone.journal.content_hash() == shared.journal.content_hash()


def test_rows_written_in_several_parts_are_whole(tmp_path, images, monkeypatch):
    plans = plan(images)
    cut(tmp_path / "at_once", plans)
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, data[:999], offset))
    cut(tmp_path / "in_parts", plans)
    assert content(tmp_path / "in_parts") == content(tmp_path / "at_once")


def test_a_micrograph_without_any_patch_is_no_stumbling_block(tmp_path, images):
    outside = record("1.png", [[-3.0, 5.0]], images[1].path.parent)
    plans = plan([images[0], outside, images[2]])
    assert plans[1].n_rows == 0
    assert not cut(tmp_path / "store", plans).unreadable
    index = np.load(tmp_path / "store" / "train" / "index.npz")
    assert set(index["micrograph"]) == {0, 2}


def test_unreadable_images_are_named_and_the_others_are_cut(tmp_path, images):
    plans = plan(images)
    whole = images[0].path.read_bytes()
    images[0].path.write_bytes(whole[:-300])
    images[1].path.unlink()
    done = cut(tmp_path / "store", plans)
    assert set(done.unreadable) == {"0.png", "1.png"}
    assert "0.png cannot be decoded" in done.unreadable["0.png"]
    assert set(done.journal.done) == {("train", 2)}
    assert not (tmp_path / "store" / "train" / "index.npz").exists()


def test_an_image_that_changes_its_size_meanwhile_is_not_cut(tmp_path, images):
    plans = plan(images)
    Image.new("L", (400, 400)).save(images[1].path)
    assert "changed its size" in cut(tmp_path / "store", plans).unreadable["1.png"]


# Going on


def count_reads(monkeypatch):
    read, names = micrographs.read_micrograph, []

    def counted(path):
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(micrographs, "read_micrograph", counted)
    return names


def test_what_is_cut_is_not_cut_again(tmp_path, images, monkeypatch):
    plans = plan(images)
    cut(tmp_path / "store", plans)
    before = content(tmp_path / "store")
    names = count_reads(monkeypatch)
    cut(tmp_path / "store", plans)
    assert names == [] and content(tmp_path / "store") == before


def test_a_torn_last_line_is_cut_off_and_its_micrograph_cut_again(tmp_path, images, monkeypatch):
    plans = plan(images)
    cut(tmp_path / "store", plans)
    before = content(tmp_path / "store")
    path = tmp_path / "store" / ".journal"
    path.write_bytes(path.read_bytes()[:-4])
    names = count_reads(monkeypatch)
    cut(tmp_path / "store", plans)
    assert names == ["2.png"] and content(tmp_path / "store") == before
    assert [json.loads(line) for line in path.read_text().splitlines()][-1]["i"] == 2


def test_a_mended_image_is_cut_again_and_the_others_are_not(tmp_path, images, monkeypatch):
    plans = plan(images)
    cut(tmp_path / "store", plans)
    Image.new("L", SIZE_PX[::-1], 77).save(images[1].path)
    names = count_reads(monkeypatch)
    cut(tmp_path / "store", plans)
    assert names == ["1.png"]
    rows = np.load(tmp_path / "store" / "train" / "patches.npy")
    index = np.load(tmp_path / "store" / "train" / "index.npz")
    assert (rows[index["micrograph"] == 1] == 77).all()


def test_rows_cut_by_another_plan_are_cut_again(tmp_path, images, monkeypatch):
    cut(tmp_path / "store", plan(images))
    names = count_reads(monkeypatch)
    cut(tmp_path / "store", plan(images, margin_px=30))
    cut(tmp_path / "other", plan(images, margin_px=30))
    assert len(names) == 6 and content(tmp_path / "store") == content(tmp_path / "other")
    cut(tmp_path / "store", plan(images))  # the first plan's lines in the journal are void
    cut(tmp_path / "third", plan(images))
    assert content(tmp_path / "store") == content(tmp_path / "third")


def test_rows_whose_file_was_deleted_are_cut_again(tmp_path, images):
    plans = plan(images)
    cut(tmp_path / "store", plans)
    before = content(tmp_path / "store")
    (tmp_path / "store" / "train" / "patches.npy").unlink()
    cut(tmp_path / "store", plans)
    assert content(tmp_path / "store") == before


def test_a_store_begun_otherwise_is_refused_with_the_names_of_the_arguments(tmp_path, images):
    cut(tmp_path / "store", plan(images))
    before = content(tmp_path / "store")
    with pytest.raises(UserError) as error:
        Journal(tmp_path / "store" / ".journal", {**MADE_FROM, "seed": 7, "hide_ratio": 0.4})
    assert "seed: 42 there, 7 now" in str(error.value)
    assert "hide_ratio: 0.3 there, 0.4 now" in str(error.value)
    assert "splits" not in str(error.value)
    assert content(tmp_path / "store") == before


def test_a_journal_without_any_cut_micrograph_binds_nobody(tmp_path):
    Journal(tmp_path / ".journal", MADE_FROM).begin("train", "a plan", afresh=True)
    journal = Journal(tmp_path / ".journal", {**MADE_FROM, "seed": 7})
    assert journal.done == {} and journal.plans == {}
    assert json.loads((tmp_path / ".journal").read_text())["seed"] == 7


# The finished store


def finish(folder, n_patches):
    counts = {"n_patches": n_patches, "micrographs": [{"name": "0.png", "empiar_id": "10017"}]}
    (folder / "metadata.json").write_text(
        json.dumps({"content_hash": "x", "splits": {"train": counts}})
    )


def test_a_finished_store_reads_its_rows_through_a_memory_map(tmp_path, images):
    plans = plan(images[:1])
    cut(tmp_path, plans)
    finish(tmp_path, plans[0].n_rows)
    store = PatchStore(tmp_path, "train")
    assert len(store) == plans[0].n_rows and isinstance(store.patches, np.memmap)
    assert store.names == ["0.png"] and store.ids == ["10017"]
    assert store.labeled.sum() == len(plans[0].labelled_px)
    image = np.asarray(Image.open(images[0].path))
    rows = np.array([3, 0, 5])
    np.testing.assert_array_equal(store[rows], cut_patches(image, store.centre[rows], PATCH_PX))


def test_an_unfinished_and_a_damaged_store_are_clear_errors(tmp_path, images):
    plans = plan(images[:1])
    cut(tmp_path, plans)
    with pytest.raises(UserError, match="is not a finished patch store"):
        PatchStore(tmp_path, "train")
    finish(tmp_path, plans[0].n_rows)
    with pytest.raises(UserError, match="has no split 'val'; there are: train"):
        PatchStore(tmp_path, "val")
    for name in ("patches.npy", "index.npz"):
        path = tmp_path / "train" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-200])
        with pytest.raises(UserError, match="train is damaged"):
            PatchStore(tmp_path, "train")
        path.write_bytes(whole)
    finish(tmp_path, plans[0].n_rows + 1)
    with pytest.raises(UserError, match="train is damaged"):
        PatchStore(tmp_path, "train")
    (tmp_path / "metadata.json").write_text("[]")
    with pytest.raises(UserError, match=r"metadata\.json"):
        PatchStore(tmp_path, "train")


# The pool


def slow_first(n):
    time.sleep(0.2 if n == 0 else 0)
    return n, os.getpid()


def die(n):
    os._exit(9)


def complain(n):
    raise UserError(f"number {n}")


@pytest.mark.parametrize("n_workers", [0, 1, 3])
def test_results_come_in_order_from_as_many_processes_as_asked(n_workers):
    results = list(ordered_map(slow_first, range(30), n_workers, "Counting"))
    assert [n for n, _ in results] == list(range(30))
    processes = {process for _, process in results}
    assert len(processes) <= max(1, n_workers)
    assert (os.getpid() in processes) == (n_workers == 0)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_no_job_gives_no_result(n_workers):
    assert list(ordered_map(slow_first, [], n_workers, "Counting")) == []


def test_a_users_mistake_in_a_worker_comes_through():
    with pytest.raises(UserError, match="number 0"):
        list(ordered_map(complain, range(5), 2, "Complaining"))


def test_a_killed_worker_is_a_clear_error_and_no_hang():
    with pytest.raises(UserError, match=r"a worker process was killed.*fewer --num-workers"):
        list(ordered_map(die, range(5), 2, "Dying"))


def test_leaving_early_leaves_no_process_behind():
    results = ordered_map(slow_first, range(50), 2, "Counting")
    process = [next(results), next(results)][1][1]
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_grid_points_are_coprime_with_the_blocks_of_a_jpeg():
    assert np.gcd(GRID_STEP_PX, 8) == 1


@pytest.mark.parametrize("fault", ["garbage", "a changed number", "no object"])
def test_a_damaged_line_of_the_journal_ends_it_and_the_rest_is_cut_again(tmp_path, images, fault):
    plans = plan(images)
    cut(tmp_path / "store", plans)
    before = content(tmp_path / "store")
    path = tmp_path / "store" / ".journal"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = {
        "garbage": b"\xff{\n", "no object": b"null\n",
        "a changed number": lines[3].replace(b'"image_bytes": ', b'"image_bytes": 1'),
    }[fault]  # fmt: skip
    path.write_bytes(b"".join(lines))
    assert len(Journal(path, MADE_FROM).done) == 1
    cut(tmp_path / "store", plans)
    assert content(tmp_path / "store") == before


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("micrograph", lambda a: a + 7),
        ("label", lambda a: a + 2),
        ("tag", lambda a: a.astype(float)),
        ("centre", lambda a: a[:, :1]),
        ("labeled", lambda a: a[:-1]),
    ],
)
def test_an_index_that_does_not_fit_the_store_is_damage(tmp_path, images, name, change):
    plans = plan(images[:1])
    cut(tmp_path, plans)
    finish(tmp_path, plans[0].n_rows)
    path = tmp_path / "train" / "index.npz"
    index = dict(np.load(path))
    index[name] = change(index[name])
    np.savez(path, **index)
    with pytest.raises(UserError, match=f"train is damaged .*{name}"):
        PatchStore(tmp_path, "train")


@pytest.mark.parametrize("shape", [(10**12, 32, 32), (-1, 32, 32), (), (5, 32, 30)])
def test_patches_whose_header_lies_are_damage(tmp_path, images, shape):
    plans = plan(images[:1])
    cut(tmp_path, plans)
    finish(tmp_path, plans[0].n_rows)
    with (tmp_path / "train" / "patches.npy").open("r+b") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(UserError, match="train is damaged"):
        PatchStore(tmp_path, "train")


@pytest.mark.parametrize("name", [5, None, ["a"]])
def test_a_store_whose_metadata_lacks_what_training_reads_is_damage(tmp_path, images, name):
    plans = plan(images[:1])
    cut(tmp_path, plans)
    finish(tmp_path, plans[0].n_rows)
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    metadata["splits"]["train"]["micrographs"][0]["name"] = name
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=r"train is damaged .*metadata\.json"):
        PatchStore(tmp_path, "train")
