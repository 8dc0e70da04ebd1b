import numpy as np
import pytest
import torch

from picking.errors import UserError
from picking.pu_learning.samplers import PUBatchSampler


def flags(n_positive, n_unlabeled):
    """Labelled flags in a mixed order."""
    labeled = np.array([True] * n_positive + [False] * n_unlabeled)
    return np.random.default_rng(0).permutation(labeled)


def epochs(sampler, *numbers):
    batches = []
    for number in numbers:
        sampler.set_epoch(number)
        batches += list(sampler)
    return batches


@pytest.mark.parametrize(
    ("batch_size", "ratio", "n_pos", "n_unl"),
    [(64, [1, 4], 12, 52), (8, [1, 1], 4, 4), (10, (1, 4), 2, 8), (7, [2.5, 1.0], 5, 2)],
)
def test_every_batch_holds_exactly_its_labelled_and_its_unlabeled(batch_size, ratio, n_pos, n_unl):
    labeled = flags(31, 217)
    sampler = PUBatchSampler(labeled, batch_size, ratio)
    assert (sampler.n_pos_per_batch, sampler.n_unl_per_batch) == (n_pos, n_unl)
    batches = epochs(sampler, 0, 1)
    assert len(batches) == 2 * len(sampler) == 2 * -(-217 // n_unl)
    for batch in batches:
        assert len(batch) == batch_size
        assert labeled[batch[:n_pos]].all() and not labeled[batch[n_pos:]].any()


@pytest.mark.parametrize("n_unlabeled", [80, 81, 87])
def test_an_epoch_shows_every_unlabeled_patch_once_and_fills_up_its_last_batch(n_unlabeled):
    labeled = flags(5, n_unlabeled)
    sampler = PUBatchSampler(labeled, 10)
    seen = np.concatenate([batch[2:] for batch in epochs(sampler, 4)])
    assert sorted(seen[:n_unlabeled]) == np.flatnonzero(~labeled).tolist()
    assert len(seen) == 8 * len(sampler) and len(seen) - n_unlabeled < 8


def test_all_of_the_positives_are_used_before_any_repeats_across_epochs():
    labeled = flags(7, 20)
    drawn = np.concatenate([batch[:2] for batch in epochs(PUBatchSampler(labeled, 10), *range(9))])
    assert len(drawn) == 2 * 3 * 9
    passes = drawn[: len(drawn) // 7 * 7].reshape(-1, 7)
    assert (np.sort(passes, axis=1) == np.flatnonzero(labeled)).all()
    assert len({tuple(each) for each in passes}) > 1  # each in a new order


def test_order_changes_with_the_epoch_and_with_the_seed_and_with_nothing_else():
    labeled = flags(30, 200)

    for part in (slice(None, 2), slice(2, None)):  # of P, of U

        def order(seed, epoch, part=part):
            batches = epochs(PUBatchSampler(labeled, 10, seed=seed), epoch)
            return np.concatenate([batch[part] for batch in batches]).tolist()

        assert order(1, 2) == order(1, 2)
        assert order(1, 2) != order(1, 3) and order(1, 2) != order(2, 2)


@pytest.mark.parametrize(("n_positive", "n_unlabeled"), [(7, 100), (300, 97), (1, 3)])
@pytest.mark.parametrize("start_batch", [0, 1, 5])
def test_starting_inside_an_epoch_gives_the_uninterrupted_order(
    n_positive, n_unlabeled, start_batch
):
    labeled = flags(n_positive, n_unlabeled)
    uninterrupted = PUBatchSampler(labeled, 10, seed=3)
    start_batch = min(start_batch, len(uninterrupted))
    expected = epochs(uninterrupted, 0, 1, 2, 3)[3 * len(uninterrupted) + start_batch :]
    resumed = PUBatchSampler(labeled, 10, seed=3)
    resumed.set_epoch(3, start_batch)
    assert [b.tolist() for b in resumed] == [b.tolist() for b in expected]


def test_a_batch_larger_than_what_there_is_is_filled_by_further_passes():
    labeled = flags(2, 3)
    sampler = PUBatchSampler(labeled, 20, [1, 1])
    (batch,) = epochs(sampler, 0)
    assert sorted(np.bincount(batch[:10], minlength=5)[labeled]) == [5, 5]
    assert sorted(np.bincount(batch[10:], minlength=5)[~labeled]) == [3, 3, 4]


def test_processes_share_the_global_batch_without_overlap():
    labeled = flags(30, 200)
    whole = epochs(PUBatchSampler(labeled, 64, seed=5), 2)
    parts = [
        epochs(PUBatchSampler(labeled, 64, seed=5, rank=rank, world_size=4), 2) for rank in range(4)
    ]
    assert [len(part) for part in parts] == [len(whole)] * 4
    for step, batch in enumerate(whole):
        shares = [part[step] for part in parts]
        assert all(labeled[share].tolist() == [True] * 3 + [False] * 13 for share in shares)
        np.testing.assert_array_equal(np.concatenate([s[:3] for s in shares]), batch[:12])
        np.testing.assert_array_equal(np.concatenate([s[3:] for s in shares]), batch[12:])


def test_processes_that_cannot_share_a_batch_equally_are_an_error_that_names_the_sizes():
    with pytest.raises(UserError, match="3 processes cannot share the 12 labelled and 52"):
        PUBatchSampler(flags(30, 200), 64, world_size=3)


def test_a_batch_too_small_for_the_ratio_names_both():
    with pytest.raises(UserError, match=r"batch size 4 at ratio \[1, 4\] gives 0 labelled"):
        PUBatchSampler(flags(3, 9), 4)
    with pytest.raises(UserError, match="0 unlabeled"):
        PUBatchSampler(flags(3, 9), 0)


@pytest.mark.parametrize("ratio", [[1, 0], [0, 0], [-4, 4], [1, -4]])
def test_a_ratio_of_no_positive_numbers_is_an_error(ratio):
    with pytest.raises(UserError, match="needs at least one of each"):
        PUBatchSampler(flags(3, 9), 10, ratio)


@pytest.mark.parametrize(("n_positive", "n_unlabeled"), [(0, 9), (9, 0)])
def test_a_data_set_without_labelled_or_unlabeled_patches_is_an_error(n_positive, n_unlabeled):
    with pytest.raises(UserError, match=f"{n_positive} labelled and {n_unlabeled} unlabeled"):
        PUBatchSampler(flags(n_positive, n_unlabeled), 10)


def test_a_data_loader_takes_it_as_its_batch_sampler():
    labeled = flags(6, 40)
    data = torch.utils.data.TensorDataset(torch.from_numpy(labeled))
    loader = torch.utils.data.DataLoader(data, batch_sampler=PUBatchSampler(labeled, 10))
    batches = [batch.tolist() for (batch,) in loader]
    assert batches == [[True] * 2 + [False] * 8] * 5 and len(loader) == 5


# Known negatives


def with_negatives(n_positive, n_unlabeled, n_negative, *arguments, **named):
    """A sampler, and which rows are labelled and which are negatives."""
    kinds = np.random.default_rng(0).permutation(
        np.repeat([0, 1, 2], [n_positive, n_unlabeled, n_negative])
    )
    labeled, negative = kinds == 0, kinds == 2
    return PUBatchSampler(labeled, *arguments, negative=negative, **named), labeled, negative


@pytest.mark.parametrize(
    ("n_negative", "n_neg"), [(0, 0), (1, 1), (20, 3), (40, 6), (41, 6), (500, 6)]
)
def test_a_negative_is_seen_as_often_as_a_positive_but_no_more_than_these_a_batch(
    n_negative, n_neg
):
    sampler, labeled, negative = with_negatives(40, 100, n_negative, 22, (3, 8))
    assert sampler.n_neg_per_batch == sampler.n_neg_per_process == n_neg
    for batch in epochs(sampler, 0, 1):
        assert len(batch) == 22 + n_neg
        assert labeled[batch[:6]].all() and negative[batch[6 : 6 + n_neg]].all()
        assert not (labeled | negative)[batch[6 + n_neg :]].any()


def test_negatives_leave_the_positives_and_unlabeled_of_every_batch_as_they_were():
    sampler, labeled, negative = with_negatives(9, 50, 4, 10)
    others = np.flatnonzero(~negative)
    alone = epochs(PUBatchSampler(labeled[others], 10), 0, 1, 2)
    for batch, wanted in zip(epochs(sampler, 0, 1, 2), alone, strict=True):
        kept = batch[~negative[batch]]
        np.testing.assert_array_equal(kept, others[wanted])


def test_all_negatives_are_used_before_any_repeats_and_a_resumed_epoch_goes_on_with_them():
    sampler, _, negative = with_negatives(9, 50, 7, 20)
    batches = epochs(sampler, 0, 1, 2)
    drawn = np.concatenate([batch[negative[batch]] for batch in batches])
    assert len(drawn) > 14
    for start in range(0, len(drawn) - 6, 7):
        assert sorted(drawn[start : start + 7]) == np.flatnonzero(negative).tolist()
    sampler.set_epoch(1, 2)
    for batch, wanted in zip(sampler, batches[len(sampler) + 2 :], strict=False):
        np.testing.assert_array_equal(batch, wanted)


def test_processes_share_the_negatives_of_a_batch_equally():
    parts = [with_negatives(12, 60, 5, 20, (1, 4), rank=rank, world_size=2)[0] for rank in (0, 1)]
    _, labeled, negative = with_negatives(12, 60, 5, 20)
    for batch in zip(*parts, strict=True):
        assert [negative[one].sum() for one in batch] == [1, 1]
        assert [labeled[one].sum() for one in batch] == [2, 2]
        assert all(negative[one[2]] for one in batch)
