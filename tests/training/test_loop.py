"""The training loop: rates, steps, numbers that are not finite, what is the best so far, stops."""

import math

import pytest
import torch
from torch import nn

from picking.errors import Stopped, UserError
from picking.runs import distributed
from picking.training import loop
from picking.training.loop import Progress, State


def new_state(progress=None):
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(network.parameters(), 0.1)
    totals = torch.zeros(2, dtype=torch.float64)
    return State(
        network=network, optimizer=optimizer, totals=totals, progress=progress or Progress()
    )


def loss_of(state, scale=1.0):
    return scale * state.network(torch.ones(2, 3)).sum()


def test_the_rate_falls_along_half_a_cosine_or_stays():
    half = math.sqrt(0.5)
    rates = [loop.cosine(step, 100, 0.01, 0.0) for step in (0, 25, 50, 75, 100)]
    assert rates == pytest.approx([0.01, 0.005 * (1 + half), 0.005, 0.005 * (1 - half), 0])
    assert loop.cosine(100, 100, 0.01, 0.001) == pytest.approx(0.001)
    assert loop.cosine(99, 100, 0.01, 0.01) == 0.01


def test_a_step_moves_the_weights_and_is_counted():
    state = new_state(Progress(epoch=1, batch=2, step=12))
    loop.set_rate(state.optimizer, 0.5)
    before = state.network.weight.clone()
    loop.take_step(state, loss_of(state), grad_clip=0.0)
    assert (before - state.network.weight).abs().tolist() == [pytest.approx([0.5] * 3, rel=0.1)]
    assert (state.progress.step, state.progress.batch) == (13, 3)
    assert state.progress.train_seconds > 0
    loop.require_finite(state)
    loop.end_epoch(state)
    assert (state.progress.epoch, state.progress.batch) == (2, 0)


def test_the_gradient_is_clipped_where_a_norm_is_given():
    norms = []
    for grad_clip in (0.0, 0.01):
        state = new_state()
        loop.take_step(state, loss_of(state), grad_clip)
        gradients = torch.cat([weight.grad.flatten() for weight in state.weights])
        norms.append(float(gradients.norm()))
    assert norms == [pytest.approx(4.0), pytest.approx(0.01, rel=1e-3)]


@pytest.mark.parametrize("n_good", [0, 2])
def test_the_first_loss_that_is_not_finite_is_named_by_epoch_and_batch(n_good):
    state = new_state(Progress(epoch=1, batch=3, step=8))
    for scale in (*[1.0] * n_good, math.nan, 1.0):
        loop.take_step(state, loss_of(state, scale), grad_clip=0.0)
    words = rf"step {9 + n_good} \(epoch 2, batch {4 + n_good}\)"
    with pytest.raises(UserError, match=words):
        loop.require_finite(state)


def test_a_loss_that_is_not_finite_is_noticed_some_steps_later_amid_the_epoch():
    state = new_state()
    loop.take_step(state, loss_of(state, math.inf), grad_clip=0.0)
    with pytest.raises(UserError, match="batch 1"):
        for _ in range(loop.CHECK_FINITE_EVERY):
            loop.take_step(state, loss_of(state), grad_clip=0.0)


@pytest.mark.parametrize(
    ("n_processes", "total", "n_saved"), [(1, 1.0, 1), (2, 1.0, 0), (1, math.nan, 0)]
)
def test_on_a_stop_one_process_saves_what_is_finite(monkeypatch, n_processes, total, n_saved):
    monkeypatch.setattr(distributed, "place", lambda: (0, n_processes))
    state, saved = new_state(), []
    state.totals += total
    with pytest.raises(Stopped), loop.saving_on_stop(state, lambda: saved.append(1)):
        raise Stopped
    assert len(saved) == n_saved


def test_kept_is_what_is_best_or_within_the_slack_and_only_a_better_one_is_the_best():
    progress, kept = Progress(), []
    for progress.epoch, auc in enumerate((0.6, 0.7, 0.66, 0.5, 0.7), start=1):
        kept.append(loop.note_best(progress, (auc,), slack=0.05))
    assert kept == [True, True, True, False, True]
    assert (progress.best, progress.best_epoch) == ((0.7,), 2)


def test_where_the_first_metric_is_equal_the_next_decides():
    progress = Progress(epoch=1)
    assert loop.note_best(progress, (0.0, 0.2))
    assert not loop.note_best(progress, (0.0, 0.2))
    assert loop.note_best(progress, (0.0, 0.3))
