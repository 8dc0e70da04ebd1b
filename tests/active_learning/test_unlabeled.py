"""Consistency on the pool: the loss, which images join, and that nobody reads their labels."""

import copy
import re
import shutil
import signal
import sys

import numpy as np
import pytest
import torch

import train_active_learning_fixed as script
from picking.active_learning import train as training
from picking.active_learning.unlabeled import (
    WithUnlabeled,
    running_statistics_kept,
    with_unlabeled,
)
from picking.config import WarpConfig
from picking.mask_values import IGNORE
from picking.runs import distributed
from picking.stores.segmentation import CryoEMSegmentationDataset
from picking.training.augment import to_float
from picking.training.losses import fixmatch_consistency, pixel_consistency
from picking.training.warps import two_views, warp
from tests.fixtures.active_runs import (
    arguments,
    assert_same_run,
    epochs_of,
    labelled_of,
    learn,
    refused,
)
from tests.fixtures.gpu import fake_gpu
from tests.fixtures.images import generator
from tests.fixtures.runs import one_thread
from tests.fixtures.stopping import leave, signal_at
from tests.training.test_warps import disks, noise_and_masks, only

ON = ["consistency.weight=0.5", "consistency.threshold=0.55", "consistency.ratio=2"]


@pytest.fixture(scope="module")
def finished(seg_store, tmp_path_factory):
    return learn(seg_store, tmp_path_factory.mktemp("finished"), overrides=ON)


# Batch norm


def test_a_weak_view_is_normalised_by_its_batch_and_leaves_the_running_statistics_alone():
    network = torch.nn.BatchNorm2d(2)
    x = torch.randn((3, 2, 4, 4), generator=generator()) + 5
    expected = copy.deepcopy(network)(x)
    before = copy.deepcopy(network.state_dict())
    with running_statistics_kept(network):
        assert torch.equal(network(x), expected)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    network(x)
    assert not torch.equal(network.running_mean, before["running_mean"])


# The loss


def logits(seed=0, shape=(3, 1, 12, 10)):
    z = torch.randn((2, *shape), generator=generator(seed)) * 3
    inside = torch.rand((shape[0], *shape[2:]), generator=generator(seed + 1)) < 0.7
    return z[0], z[1], inside


def consistency_numpy(z_weak, z_strong, inside, threshold):
    """Loss and mask rate, pixel after pixel, in float64."""
    loss = n_masked = 0.0
    flat = (np.asarray(part, float).ravel() for part in (z_weak, z_strong, inside))
    for weak, strong, takes_part in zip(*flat, strict=True):
        q = 1 / (1 + np.exp(-weak))
        if takes_part and max(q, 1 - q) >= threshold:
            p = 1 / (1 + np.exp(-strong))
            loss -= np.log(p) if q >= 0.5 else np.log(1 - p)
            n_masked += 1
    return loss / inside.sum(), n_masked / inside.sum()


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_the_pixel_loss_is_the_sum_over_masked_pixels_by_all_pixels_inside(threshold):
    z_weak, z_strong, inside = logits()
    loss, mask_rate = pixel_consistency(z_weak, z_strong, inside, threshold)
    expected = consistency_numpy(z_weak, z_strong, inside.numpy(), threshold)
    assert (loss.item(), mask_rate.item()) == pytest.approx(expected, rel=1e-5)


def test_with_every_pixel_inside_it_is_the_consistency_of_patches():
    z_weak, z_strong, inside = logits()
    loss, mask_rate = pixel_consistency(z_weak, z_strong, torch.ones_like(inside), 0.8)
    expected, mask = fixmatch_consistency(z_weak.flatten(), z_strong.flatten(), 0.8)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert mask_rate.item() == pytest.approx(mask.float().mean().item())


def test_only_strong_logits_that_are_masked_and_inside_get_a_gradient():
    z_weak, z_strong, inside = (part.requires_grad_(part.is_floating_point()) for part in logits())
    loss, mask_rate = pixel_consistency(z_weak, z_strong, inside, 0.8)
    loss.backward()
    q = torch.sigmoid(z_weak.detach())
    takes_part = (torch.maximum(q, 1 - q) >= 0.8) & inside.unsqueeze(1)
    assert z_weak.grad is None and not mask_rate.requires_grad
    assert torch.equal(z_strong.grad != 0, takes_part) and takes_part.any()


def test_without_a_pixel_inside_loss_and_gradient_are_zero():
    z_weak, z_strong, inside = logits()
    z_strong.requires_grad_()
    loss, mask_rate = pixel_consistency(z_weak, z_strong, torch.zeros_like(inside), 0.5)
    loss.backward()
    assert loss.item() == mask_rate.item() == 0 and (z_strong.grad == 0).all()


def test_parts_of_a_batch_make_the_loss_of_the_whole_where_their_sums_are_added():
    z_weak, z_strong, inside = logits(shape=(4, 1, 6, 6))
    expected = pixel_consistency(z_weak, z_strong, inside, 0.8)
    sums = []
    for part in (slice(0, 1), slice(1, 4)):
        pixel_consistency(z_weak[part], z_strong[part], inside[part], 0.8, whole=note(sums))
    found = pixel_consistency(
        z_weak[1:], z_strong[1:], inside[1:], 0.8, whole=lambda _: sums[0] + sums[1]
    )
    torch.testing.assert_close(found, expected)


def note(values):
    def identity(value):
        values.append(value)
        return value

    return identity


# The views


def test_both_views_are_moved_alike_and_as_warp_moves_an_image():
    images, masks = disks(6, side_px=64)
    weak, strong, inside = two_views(images, generator(), WarpConfig(), 0.0)
    assert torch.equal(weak, strong)  # of strength 0
    still = WarpConfig(noise=0, contrast=0, gradient=0)
    x, moved = warp(images, masks, generator(), still)
    assert torch.equal(weak, x)
    assert torch.equal(inside, moved != IGNORE) and not inside.all() and inside.any()


def test_only_the_strong_view_is_distorted_the_more_the_stronger():
    images, _ = noise_and_masks(8, 64)
    weak, strong, inside = two_views(images, generator(), only(noise=0.5, contrast=0.2))
    assert torch.equal(weak, to_float(images)) and inside.all()
    _, stronger, _ = two_views(images, generator(), only(noise=0.5, contrast=0.2), 3.0)
    off, far = ((view - weak).flatten(1).std(dim=1) for view in (strong, stronger))
    torch.testing.assert_close(far, 3 * off, rtol=1e-3, atol=1e-4)


def test_contrast_never_inverts_however_strong_the_view():
    images, _ = noise_and_masks(64, 16)
    weak, strong, _ = two_views(images, generator(), only(contrast=0.95), 10.0)
    assert ((weak * strong).flatten(1).sum(dim=1) > 0).all()


def test_the_views_of_a_share_are_those_of_the_whole_batch():
    images, _ = noise_and_masks(6, 32)
    whole = two_views(images, generator(), WarpConfig())
    for rank in range(3):
        part = slice(2 * rank, 2 * rank + 2)
        own = two_views(images[part], generator(), WarpConfig(), share=(rank, 3))
        for one, of_whole in zip(own, whole, strict=True):
            torch.testing.assert_close(one, of_whole[part])


def test_on_a_gpu_nothing_waits_for_a_value():
    with fake_gpu() as images:
        weak, strong, inside = two_views(images, generator(), WarpConfig())
        found = (weak, strong, inside, *pixel_consistency(weak, strong, inside, 0.9))
        assert {one.device.type for one in found} == {"cuda"}


# The drawing


def drawn(n_unlabeled, n, n_steps=3, first_step=0, epoch=0):
    batches = [np.arange(2)] * n_steps
    joined = with_unlabeled(batches, 5 + np.arange(n_unlabeled), n, 42, (1, epoch, first_step))
    assert all(positions.tolist() == [0, 1] for positions, _ in joined)
    return [rows.tolist() for _, rows in joined]


def test_a_step_draws_no_image_twice_while_there_are_enough():
    for rows in drawn(9, 6):
        assert len(set(rows)) == 6 and set(rows) <= set(range(5, 14))
    for rows in drawn(4, 6):  # too few: each once before any comes twice
        assert set(rows) == {5, 6, 7, 8} and len(rows) == 6


def test_a_draw_follows_from_seed_and_step_alone():
    assert drawn(9, 6, 2, first_step=1) == drawn(9, 6, 3)[1:]
    assert drawn(9, 6) != drawn(9, 6, epoch=1)


def test_processes_share_the_draw(monkeypatch):
    whole = drawn(9, 6)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "place", lambda rank=rank: (rank, 2))
        shares.append(drawn(9, 6))
    assert [one + other for one, other in zip(*shares, strict=True)] == whole


def test_batches_bring_the_unlabeled_without_masks():
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4), np.uint8)
    labelled = CryoEMSegmentationDataset(images, images // 200, True, rows=np.array([4, 1]))
    batch = WithUnlabeled(labelled)[np.array([1]), np.array([0, 5, 3])]
    assert np.array_equal(batch.images, images[[1]]) and np.array_equal(
        batch.masks, images[[1]] // 200
    )
    assert np.array_equal(batch.unlabeled, images[[0, 5, 3]]) and batch.is_training


# Runs


def test_an_epochs_line_metrics_and_tensorboard_have_consistency_and_mask_rate(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    epochs = epochs_of(finished)
    for epoch in epochs:
        assert 0 < epoch["consistency_loss"] < epoch["loss"] and 0 < epoch["mask_rate"] <= 1
    log = (finished / "training.log").read_text()
    assert "Consistency on the pool: weight 0.5, threshold 0.55, 2 unlabeled image(s)" in log
    shown = re.findall(r"loss \d\.\d{4}  consistency (\d\.\d{4})  mask rate (\d+\.\d)%  lr", log)
    assert shown == [
        (f"{e['consistency_loss']:.4f}", f"{100 * e['mask_rate']:.1f}") for e in epochs
    ]
    events = EventAccumulator(str(finished)).Reload()
    for tag, name in (("Loss/Consistency", "consistency_loss"), ("Mask Rate/Total", "mask_rate")):
        values = [scalar.value for scalar in events.Scalars(tag)]
        assert values == pytest.approx([epoch[name] for epoch in epochs])


def test_weight_0_is_a_run_without_it_whatever_the_other_keys(seg_store, tmp_path, monkeypatch):
    plain = learn(seg_store, tmp_path / "plain")
    monkeypatch.setattr(training, "unlabeled_views", None)
    monkeypatch.setattr(training, "with_unlabeled", None)
    overrides = ["consistency.threshold=0.6", "consistency.ratio=3"]
    off = learn(seg_store, tmp_path / "off", overrides=overrides)
    assert (off / "metrics.jsonl").read_text() == (plain / "metrics.jsonl").read_text()
    assert all("mask_rate" not in epoch for epoch in epochs_of(off))
    assert "onsistency" not in (off / "training.log").read_text()


def test_the_images_that_join_are_those_without_a_label(seg_store, tmp_path, finished, monkeypatch):
    seen = []
    real = WithUnlabeled.__getitem__

    def spy(self, places):
        seen.append((len(self.labelled), places[1].tolist()))
        return real(self, places)

    monkeypatch.setattr(WithUnlabeled, "__getitem__", spy)
    run = learn(seg_store, tmp_path, overrides=ON)
    assert_same_run(run, finished)
    for k in range(3):
        labelled = set(labelled_of(run, k)["indices"])
        joined = [rows for n_labelled, rows in seen if n_labelled == len(labelled)]
        assert len(joined) == 2 * len(labelled) / 2  # two epochs of batches of two
        assert all(len(set(rows)) == 4 and not set(rows) & labelled for rows in joined)


def test_the_weight_changes_what_is_learned(seg_store, tmp_path, finished):
    overrides = ["active_learning.iterations=1", *ON, "consistency.weight=5"]
    more = epochs_of(learn(seg_store, tmp_path, overrides=overrides))
    assert more[0]["val"] != epochs_of(finished)[0]["val"]


def test_labels_of_the_pool_are_never_read(seg_store, tmp_path, finished):
    store = tmp_path / "store"
    shutil.copytree(seg_store, store)
    masks = np.load(store / "train" / "masks.npy")
    labelled = labelled_of(finished, 0)["indices"]
    others = np.setdiff1d(np.arange(len(masks)), labelled)
    masks[others] = np.random.default_rng(1).choice([0, 1, IGNORE], masks[others].shape)
    np.save(store / "train" / "masks.npy", masks)
    overrides = [*ON, "active_learning.iterations=1"]
    run = learn(store, tmp_path / "changed", overrides=overrides)
    assert epochs_of(run) == epochs_of(finished)[:2]


def test_with_every_image_labelled_it_is_off_and_the_log_says_so_once(seg_store, tmp_path):
    run = learn(seg_store, tmp_path, "--strategy", "full", overrides=ON, run="full")
    log = (run / "training.log").read_text()
    assert log.count("No image of the pool is without a label: consistency is off") == 1
    assert all("mask_rate" not in epoch for epoch in epochs_of(run))


@pytest.mark.parametrize(
    ("name", "n", "place"),
    [
        ("pixel_consistency", 5, "1 after epoch 1, batch 1"),  # amid the first of two
        ("evaluate_pixels", 4, "1 after epoch 1, batch 2"),
    ],
)
def test_a_run_stopped_amid_an_epoch_ends_as_if_never_stopped(
    seg_store, tmp_path, finished, capsys, monkeypatch, name, n, place
):
    argv = arguments(seg_store, tmp_path, overrides=ON)
    monkeypatch.setattr(sys, "argv", [*map(str, ["script", *argv])])
    with pytest.MonkeyPatch.context() as patch, one_thread():
        signal_at(patch, training, name, n, signal.SIGTERM)
        assert leave(script.main, capsys).status == 143
    assert_same_run(learn(seg_store, tmp_path, "--resume", overrides=ON), finished)
    log = (tmp_path / "uncertainty" / "training.log").read_text()
    assert re.findall("Resumed iteration (.*)", log) == [place]


def test_reading_workers_change_nothing(seg_store, tmp_path, finished):
    overrides = [*ON, "active_learning.iterations=1"]
    run = learn(seg_store, tmp_path, "--num-workers", 1, overrides=overrides)
    assert epochs_of(run) == epochs_of(finished)[:2]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("consistency.threshold=0.4", "from 0.5 to 1"),
        ("consistency.ratio=0", "from 1 to 64"),
        ("consistency.ratio=1.5", "must be a whole number"),
        ("consistency.weight=-1", "from 0 on"),
    ],
)
def test_values_out_of_range_are_refused(seg_store, tmp_path, override, words):
    assert words in refused(seg_store, tmp_path, overrides=[override])
