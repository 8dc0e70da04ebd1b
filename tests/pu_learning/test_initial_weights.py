"""PU learning that starts from the weights of a U-Net: what lands, and what is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from picking.errors import UserError
from picking.formats.coordinates import write_picks
from picking.pu_learning import run
from picking.pu_learning.state import State
from picking.runs.checkpoints import load_checkpoint
from tests.active_learning.test_initial_weights import pu_checkpoint, segmentation_checkpoint
from tests.fixtures import few_picks
from tests.fixtures.data_sets import some_centres
from tests.fixtures.images import grain
from tests.fixtures.plans import record
from tests.fixtures.pu_runs import call

SIZE_PX, DIAMETER_PX = (300, 340), 20
SMALL = (
    "data.input_size_px=32", "model.width=4", "model.depth=2", "training.batch_size=11",
    "training.max_steps=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Windows about a few picks on three micrographs."""
    root, rng = tmp_path_factory.mktemp("start"), np.random.default_rng(0)
    picks = []
    for name in ("a", "b", "c"):
        Image.fromarray(grain(SIZE_PX)).save(root / f"{name}.png")
        centres = some_centres(rng, 5, SIZE_PX, 20, 30)
        one = record(f"{name}.png", centres, root, diameter_px=DIAMETER_PX)
        picks.append(dataclasses.replace(one, size_px=SIZE_PX))
    write_picks(root, picks, ["star"], one_file=True)
    few_picks.preprocess(
        root / "store", micrographs=root / "*.png", labels=root / "picks.star",
        diameter=f"{DIAMETER_PX}px", expected_particles=8,
    )  # fmt: skip
    return root / "store"


def train(store, experiments, *overrides, config="configs/pu_few_labels.yaml", flags=()):
    sets = [f"--set={one}" for one in (*SMALL, *overrides)]
    call(
        "--config", config, "--exp-name", "run", "--experiments-dir", experiments, "--data-dir",
        store, "--device", "cpu", "--num-workers", 0, *sets, *flags,
    )  # fmt: skip
    return experiments / "run"


@pytest.mark.parametrize("of", ["pu", "segmentation"])
def test_the_weights_of_a_unet_of_either_pipeline_land(store, tmp_path, monkeypatch, of):
    path = tmp_path / "before.pt"
    _, weights = pu_checkpoint(path) if of == "pu" else segmentation_checkpoint(path, "unet")
    begun, learn = [], run.train

    def spy(config, state, *rest):
        begun.append({key: value.clone() for key, value in state.network.state_dict().items()})
        learn(config, state, *rest)

    monkeypatch.setattr(run, "train", spy)
    folder = train(store, tmp_path, f"training.initial_weights={path}")
    assert begun[0].keys() == weights.keys()
    assert all(torch.equal(begun[0][key], value) for key, value in weights.items())
    assert f"Starting from {path}" in (folder / "training.log").read_text()
    learned = load_checkpoint(folder / "checkpoints" / "last.pt")["network"]
    assert not torch.equal(learned["head.weight"], weights["head.weight"])


def test_a_run_that_goes_on_needs_no_initial_weights(store, tmp_path):
    path = tmp_path / "before.pt"
    pu_checkpoint(path)
    train(store, tmp_path, f"training.initial_weights={path}")
    path.unlink()
    train(store, tmp_path, f"training.initial_weights={path}", flags=("--resume",))


@pytest.mark.parametrize("overrides", [(), ("training.ema_decay=0.9",)])
def test_a_share_of_the_initial_weights_is_kept_in_what_is_saved(store, tmp_path, overrides):
    path = tmp_path / "before.pt"
    _, before = pu_checkpoint(path)
    asked = (f"training.initial_weights={path}", "training.initial_share=0.25", *overrides)
    folder = train(store, tmp_path, *asked)
    best = load_checkpoint(folder / "checkpoints" / "best_model.pt")["network"]
    last = load_checkpoint(folder / "checkpoints" / "last.pt")
    learned = last["average" if overrides else "network"]
    assert {name for name in before if not torch.equal(before[name], learned[name])}
    for name, value in learned.items():
        expected = 0.75 * value + 0.25 * before[name] if value.is_floating_point() else value
        torch.testing.assert_close(best[name], expected)


def test_a_run_that_is_resumed_keeps_the_share_that_it_would_have_kept(store, tmp_path):
    path = tmp_path / "before.pt"
    pu_checkpoint(path)
    asked = (f"training.initial_weights={path}", "training.initial_share=0.5")
    once = train(store, tmp_path / "once", *asked, "training.max_steps=6")
    save, saved = State.save, []

    def save_and_break(self, *args):
        save(self, *args)
        saved.append(1)
        raise KeyError("killed")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyError, match="killed"):
        patch.setattr(State, "save", save_and_break)
        train(store, tmp_path / "twice", *asked, "training.max_steps=6",
              "training.checkpoint_every_steps=2")  # fmt: skip
    path.unlink()
    twice = train(store, tmp_path / "twice", *asked, "training.max_steps=6",
                  "training.checkpoint_every_steps=2", flags=("--resume",))  # fmt: skip
    one, other = (
        load_checkpoint(folder / "checkpoints" / "best_model.pt")["network"]
        for folder in (once, twice)
    )
    assert saved == [1] and all(torch.equal(one[name], other[name]) for name in one)


def test_a_share_of_no_weights_is_refused(store, tmp_path):
    with pytest.raises(UserError, match=r"initial_share is 0\.25, .* which is null: set it to 0"):
        train(store, tmp_path, "training.initial_share=0.25")


def test_weights_without_a_name_are_refused(store, tmp_path):
    with pytest.raises(UserError, match=r"^training\.initial_weights is empty: .* or null"):
        train(store, tmp_path, "training.initial_weights=''")


@pytest.mark.parametrize(
    ("made", "override", "words"),
    [
        (lambda path: pu_checkpoint(path, width=5), (), "has width 5, .* set model.width=5"),
        (segmentation_checkpoint, (), "is an Attention U-Net: use weights of a plain U-Net"),
        (lambda path: pu_checkpoint(path, input={"preparation": "x"}), (), "of another version"),
        (pu_checkpoint, ("model.backbone=resnet18",), "model.backbone is resnet18"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_folder(
    store, tmp_path, made, override, words
):
    made(tmp_path / "before.pt")
    with pytest.raises(UserError, match=words) as error:
        train(store, tmp_path, f"training.initial_weights={tmp_path / 'before.pt'}", *override)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()
    if not override:
        assert str(error.value).startswith("training.initial_weights: ")
