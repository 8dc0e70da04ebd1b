"""Fabricated folders of active-learning runs, as far as the analysis reads them."""

import json

from picking.config import ActiveConfig, plain
from picking.learning_comparison import summarise
from picking.learning_runs import read_runs

POOL = 100
PARTICLES_PER_IMAGE = 50
RISING = [0.30, 0.40, 0.50, 0.60, 0.65, 0.68, 0.70, 0.71, 0.72, 0.73]
SLOW = [0.30, 0.35, 0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.72]


def write_run(
    root,
    strategy,
    f1s,
    seed=42,
    name=None,
    images=None,
    pool=POOL,
    test_f1s=None,
    input_hash="a" * 64,
    particles_per_image=PARTICLES_PER_IMAGE,
    **settings,
):
    """Write a run of 10, 20, ... % (full: all); ``settings`` are section__key=value of config."""
    config = plain(ActiveConfig())
    config["active_learning"]["strategy"] = strategy
    config["training"]["seed"] = seed
    for key, value in settings.items():
        section, key = key.split("__")
        config[section][key] = value
    folder = root / (name or f"{strategy}_seed{seed}")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "run.json").write_text(json.dumps({"input_hash": input_hash}))
    if images is None:
        images = [pool if strategy == "full" else round(pool * (k + 1) / 10) for k in range(10)]
    for k, f1 in enumerate(f1s):
        metrics = {
            "iteration": k,
            "f1_score": f1,
            "num_labeled": images[k],
            "num_pool": pool,
            "data_fraction": images[k] / pool,
            "num_particles_labeled": images[k] * particles_per_image,
            "num_particles_pool": pool * PARTICLES_PER_IMAGE,
            "val_images": 7,
            "test": None if test_f1s is None else {"f1_score": test_f1s[k]},
        }
        (folder / f"iteration_{k}").mkdir()
        (folder / f"iteration_{k}" / "metrics.json").write_text(json.dumps(metrics))
    return folder


def metrics_of(run, iteration):
    """The path of an iteration's metrics.json."""
    return run / f"iteration_{iteration}" / "metrics.json"


def summary_of(root, target_f1=None, minutes=5.0):
    """The content of comparison_summary.json."""
    return summarise(read_runs(root), target_f1, minutes)


def figures(root, label, target_f1=None, split="validation"):
    """A strategy's part of it."""
    return summary_of(root, target_f1)[split]["strategies"][label]


def level(figures, name="target"):
    """A level's part of that."""
    return next(row for row in figures["levels"] if row["level"] == name)


def verdict(root, label, target_f1=None):
    """A strategy's verdict."""
    return summary_of(root, target_f1)["verdicts"][label]
