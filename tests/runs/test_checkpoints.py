"""What checkpoints must hold: weights, optimisers, places, figures; how large networks may be."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from models import UNet
from picking.errors import UserError
from picking.pu_learning.state import Priors, Progress, require_place
from picking.runs import checkpoints, folder

CPU = torch.device("cpu")


def stepped(network):
    """An AdamW that has taken a step."""
    optimizer = torch.optim.AdamW(network.parameters(), 0.1, fused=True)
    network(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return optimizer


def refused(function, *arguments):
    with pytest.raises(UserError, match=r"a\.pt") as error:
        function(*arguments)
    return str(error.value)


def test_a_checkpoint_that_inflates_to_more_than_itself_is_not_read(tmp_path):
    import zipfile

    folder.save_checkpoint(tmp_path / "a.pt", {"kind": "pu_run", "w": torch.zeros(10**6)})
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as whole,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in whole.namelist():
            bomb.writestr(name, whole.read(name))
    with pytest.raises(UserError, match=r"bomb\.pt cannot be read"):
        folder.load_checkpoint(tmp_path / "bomb.pt")


def test_a_kind_that_is_no_word_is_no_checkpoint_of_ours(tmp_path):
    folder.save_checkpoint(tmp_path / "a.pt", {"kind": ["pu_run"]})
    with pytest.raises(UserError, match="is not one of this project"):
        folder.load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("weight", None, "are no tensor"),
        ("weight", torch.zeros(1, 3).to_sparse(), "are no tensor"),
        ("weight", torch.zeros(3, 1), "another architecture"),
        ("weight", torch.zeros(1, 3, dtype=torch.complex64), "another architecture"),
        ("weight", torch.zeros(1, 3, dtype=torch.int64), "another architecture"),
        ("more", torch.zeros(1), "another architecture"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, key, value, words):
    network = nn.Linear(3, 1)
    weights = {**network.state_dict(), key: value}
    assert words in refused(checkpoints.require_weights, network, weights, tmp_path / "a.pt")
    del weights[key]
    if key == "weight":
        assert "another architecture" in refused(
            checkpoints.require_weights, network, weights, tmp_path / "a.pt"
        )


def test_a_network_is_restored_with_its_weights_and_a_false_size_takes_no_memory(tmp_path):
    def build(width):
        return UNet(width=width, depth=7)

    small = UNet(width=1, depth=7)
    weights = small.state_dict()
    again = checkpoints.restored(lambda: build(1), weights, tmp_path / "a.pt", CPU)
    for key, value in again.state_dict().items():
        assert torch.equal(value, weights[key])
    # 232 GB: nothing must be made of it
    assert "another architecture" in refused(
        checkpoints.restored, lambda: build(512), weights, tmp_path / "a.pt", CPU
    )


def test_a_network_larger_than_any_memory_is_refused_and_random_numbers_stay():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    checkpoints.require_size(lambda: UNet(width=2, depth=2))
    assert torch.equal(torch.rand(3), expected)
    with pytest.raises(UserError, match="weights, more than 1,000,000,000: lower "):
        checkpoints.require_size(lambda: UNet(width=512, depth=7))


def test_an_optimiser_goes_on_as_if_never_saved(tmp_path):
    one = nn.Linear(3, 1)
    first = stepped(one)
    other = copy.deepcopy(one)
    second = torch.optim.AdamW(other.parameters(), 0.1, fused=True)
    checkpoints.load_optimizer(second, copy.deepcopy(first.state_dict()), tmp_path / "a.pt")
    for network, optimizer in ((one, first), (other, second)):
        optimizer.zero_grad()
        network(torch.full((2, 3), 0.5)).sum().backward()
        optimizer.step()
    assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["state"].pop(0) and state["state"].update({9: {}}),
        lambda state: state["state"][0].pop("step"),
        lambda state: state["state"][0].update(step=3),
        lambda state: state["state"][0].update(exp_avg=torch.zeros(2)),
        lambda state: state["state"][0].update(exp_avg_sq=None),
        lambda state: state.update(state=[1]),
    ],
)
def test_an_optimiser_of_other_weights_is_refused(tmp_path, change):
    network = nn.Linear(3, 1)
    saved = stepped(network).state_dict()
    change(saved)
    optimizer = torch.optim.AdamW(network.parameters(), 0.1, fused=True)
    assert "is damaged (" in refused(
        checkpoints.load_optimizer, optimizer, saved, tmp_path / "a.pt"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epoch": -1}, "'epoch' is -1"),
        ({"step": 1.5}, "'step' is 1.5"),
        ({"best_auc": float("nan")}, "'best_auc' is nan"),
        ({"epoch": None}, "'epoch' is None"),
        ({"more": 1}, "progress is incomplete"),
    ],
)
def test_a_place_that_is_none_is_refused(tmp_path, changes, words):
    saved = dataclasses.asdict(Progress(epoch=2, step=8))
    assert checkpoints.as_dataclass(Progress, saved, tmp_path / "a.pt") == Progress(2, step=8)
    assert words in refused(
        checkpoints.as_dataclass, Progress, {**saved, **changes}, tmp_path / "a.pt"
    )
    assert "incomplete" in refused(checkpoints.as_dataclass, Priors, {}, tmp_path / "a.pt")


def test_a_place_that_no_run_of_this_length_has_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    for good in (Progress(), Progress(2, 1, 9), Progress(3, step=10)):  # cut short by max_steps
        require_place(good, 3, 10, 4, path)
    for bad in (Progress(9, step=36), Progress(0, 5, 5), Progress(1, 0, 5)):
        assert "it stands at step" in refused(require_place, bad, 3, 10, 4, path)


def test_sums_and_figures_that_are_no_numbers_are_refused(tmp_path):
    path, sums = tmp_path / "a.pt", torch.zeros(3)
    checkpoints.load_tensor(sums, torch.ones(3), path)
    assert sums.tolist() == [1, 1, 1]
    for bad in (None, torch.ones(2), torch.tensor([1, 2, 3]), torch.full((3,), torch.nan)):
        assert "running sums" in refused(checkpoints.load_tensor, sums, bad, path)
    checkpoints.require_figures({"f1": 0.5, "auc": None}, ("f1", "auc"), path)
    for figures in (None, {"f1": 0.5}, {"f1": "0.5", "auc": None}, {"f1": torch.nan, "auc": 1}):
        assert "figures of validation" in refused(
            checkpoints.require_figures, figures, ("f1", "auc"), path
        )
