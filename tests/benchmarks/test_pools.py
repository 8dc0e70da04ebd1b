"""The pools of benchmarks.pools, and what its tables say of runs."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import f1_score

from benchmarks import pools
from benchmarks.real_sets import RealSet
from picking.config import ActiveConfig, config_from_dict
from picking.errors import UserError
from picking.runs.checkpoints import load_checkpoint
from picking.stores.journal import Journal
from picking.stores.masks import mask_writer
from picking.stores.segmentation import SegmentationStore
from picking.stores.writer import write_split
from picking.training.augment import to_float
from picking.training.networks import new_network
from tests.fixtures import active_runs
from tests.fixtures.data_sets import DIAMETER_PX, SIZE_PX, write_data_set


def test_budgets_are_the_iterations_of_a_run_whose_queries_are_as_large_as_its_first_set():
    assert pools.iterations_of([1, 2, 5, 10]) == [0, 1, 4, 9]
    assert pools.iterations_of([5, 10, 20, 40]) == [0, 1, 3, 7]
    for budgets in ([2, 5], [2, 1], [1, 1], [0, 1], [50, 150]):
        with pytest.raises(UserError, match=r"--budgets.* multiples of the first"):
            pools.iterations_of(budgets)


def test_a_tile_is_some_eight_to_sixteen_diameters_long():
    for longest_px in (1024, 1240, 4096):
        for diameter_px in np.linspace(20, longest_px / 8, 50):
            long = longest_px / pools.tiles_along(longest_px, diameter_px) / diameter_px
            assert 7.9 <= long < 2 * 7.9
    assert pools.tiles_along(1000, 400) == 1


def test_micrographs_of_several_sets_make_one_store_with_their_names_and_proteins(tmp_path):
    for name in ("a", "b"):
        write_data_set(tmp_path / name, seed=ord(name))
    plans = [
        plan for name in ("a", "b")
        for plan in pools.tiles_of(RealSet(tmp_path / name, 0), "train", f"protein {name}")
    ]  # fmt: skip
    n = pools.tiles_along(max(SIZE_PX), DIAMETER_PX)
    assert n == 2 and all(plan.settings.tiles == n for plan in plans)
    folder = tmp_path / "store" / "train"
    folder.mkdir(parents=True)
    # One whole, as if its particles were wider
    whole = dataclasses.replace(plans[0], settings=dataclasses.replace(plans[0].settings, tiles=1))
    journal = Journal(tmp_path / "store" / ".journal", {"splits": ["train"]})
    assert write_split([mask_writer(folder, [whole, *plans[1:]], journal)], 0) == {}
    store = SegmentationStore(folder)
    first = f"a_{plans[0].micrograph.path.name}"
    assert store.names[0] == first and store.names[1].endswith("#r0c0")  # cut or not, each its own
    assert len(set(store.names)) == len(store) == 1 + 4 * 5
    assert set(store.ids) == {"protein a", "protein b"}
    # A micrograph's longer side is the whole image, or two of them
    scale = pools.TILE_PX / max(SIZE_PX)
    np.testing.assert_allclose(store.diameters_px[0], DIAMETER_PX * scale, rtol=0.01)
    np.testing.assert_allclose(store.diameters_px[1:], 2 * DIAMETER_PX * scale, rtol=0.01)


def test_f1_of_a_protein_is_that_of_its_pixels_and_of_all_that_of_all(tmp_path):
    data = active_runs.write_store(tmp_path / "images")
    flags = ("--strategy", "random", "--iterations", 1, "--epochs", 8)
    run = active_runs.learn(data, tmp_path, *flags, run="random")
    split = active_runs.write_split(
        tmp_path / "more", 9, seed=7, ids=[*("ab" * 4), "b"], name="more"
    )
    store, path = SegmentationStore(split), run / "iteration_0" / "best_model.pt"
    store.masks[:, :2] = 255  # nobody knows
    result = pools.f1_by_protein(path, store)

    best = load_checkpoint(path)
    network = new_network(config_from_dict(best["config"], "", ActiveConfig), "init", 0).eval()
    network.load_state_dict(best["network"])
    with torch.no_grad():
        called = (network(to_float(torch.as_tensor(np.array(store.images))))[:, 0] >= 0).numpy()
    known, of_b = store.masks != 255, np.array([id_ == "b" for id_ in store.ids])
    expected = {}
    for name, rows in (("a", ~of_b), ("b", of_b), ("all", of_b | ~of_b)):
        chosen = known & rows[:, None, None]
        expected[name] = f1_score(store.masks[chosen], called[chosen])
    assert result["f1"] == pytest.approx(expected.pop("all"))
    assert result["proteins"] == pytest.approx(expected) and expected["a"] != expected["b"]
    assert result["macro_f1"] == pytest.approx((expected["a"] + expected["b"]) / 2)


COUNTS = {"random": (10, 8, 200), "foreground_random": (10, 7, 260), "margin": (10, 10, 240)}


def rows_of(name, seed):
    """F1 at three budgets, and what they cost: images, micrographs, particles of the first."""
    rng = np.random.default_rng([seed, len(name)])
    images, micrographs, particles = COUNTS[name]
    return [
        {
            "budget": k, "num_labeled": k * images, "num_micrographs_labeled": k * micrographs,
            "num_particles_labeled": k * particles + seed, "macro_f1": 0.1,
            "f1": 0.3 + 0.1 * k + 0.02 * rng.standard_normal(),
        }
        for k in (1, 2, 4)
    ]  # fmt: skip


def test_strategies_are_compared_by_seed_with_both_baselines_over_the_log_of_clicks():
    seeds = (0, 1, 2)
    results = {name: {seed: rows_of(name, seed) for seed in seeds} for name in COUNTS}
    (low, high), table = pools.compared(results, "f1")

    f1 = {name: np.array([[r["f1"] for r in rows_of(name, s)] for s in seeds]) for name in COUNTS}
    clicks = {
        name: np.array([[k * (2 * n + 10 * m + p) + s for k in (1, 2, 4)] for s in seeds])
        for name, (n, m, p) in COUNTS.items()
    }
    assert low == max(c[:, 0].max() for c in clicks.values()) == 20 + 100 + 240 + 2
    assert high == min(c[:, -1].min() for c in clicks.values()) == 4 * (20 + 80 + 200)
    x = np.linspace(np.log(low), np.log(high), 20_001)
    area = {
        name: np.array([np.interp(x, np.log(clicks[name][s]), f1[name][s]).mean() for s in seeds])
        for name in COUNTS
    }
    for name, row in table.items():
        assert [one["mean"] for one in row["f1"]] == pytest.approx(f1[name].mean(axis=0).tolist())
        assert row["area"]["mean"] == pytest.approx(area[name].mean(), abs=1e-5)
        assert row["clicks"] == pytest.approx(clicks[name][:, -1].mean())
        assert set(row["against"]) == {"random", "foreground_random"} - {name}
        for base, differences in row["against"].items():
            for axis, values in (("area", area), ("f1", {n: v[:, -1] for n, v in f1.items()})):
                test = stats.ttest_rel(values[name], values[base]).confidence_interval(0.95)
                expected = [test.low, test.high]
                assert differences[axis]["interval"] == pytest.approx(expected, abs=1e-4)
    assert pools.compared(results, "macro_f1")[1]["margin"]["area"]["mean"] == pytest.approx(0.1)


def test_one_seed_has_differences_without_intervals():
    results = {name: {0: rows_of(name, 0)} for name in ("random", "margin")}
    against = pools.compared(results, "f1")[1]["margin"]["against"]
    assert set(against) == {"random"} and against["random"]["area"]["interval"] is None
    assert pools.shown(against["random"]["area"], "+")[0] in "+-"
