"""The pictures of docs/labelling_guide.md, taken while a person would label.

They are written to the folder that SCREENSHOTS names, with more training than a test needs:

    SCREENSHOTS=docs/labelling python -m pytest -n0 tests/labelling/test_screenshots.py
"""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picking.labelling.rounds.runner import STOP
from picking.simulation.dataset import simulate_dataset
from tests.fixtures import ROOT
from tests.fixtures.browser import Window, started, until
from tests.fixtures.labelling import Server

QUALITY = 72
MOST_BYTES = 600_000  # of all pictures together
PARTICLE, NEGATIVE = (53, 230, 164), (255, 125, 92)
PROPOSED = ((111, 140, 255), (148, 178, 255), (205, 216, 255), (255, 234, 166), (255, 210, 31))
CONFIG = """
data: {{batch_ratio: [3, 8], input_size_px: 64}}
model: {{backbone: unet, width: {width}, depth: 3}}
loss: {{prior: pool, unlabeled_prior: data, eta: auto, adaptive_threshold: true}}
optimizer: {{lr: 0.003}}
training: {{batch_size: 22, epochs: 1000, max_steps: {steps}, early_stopping_patience: 1000}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the pictures go."""
    asked = os.environ.get("SCREENSHOTS")
    if asked is None:
        return tmp_path_factory.mktemp("pictures")
    Path(asked).mkdir(parents=True, exist_ok=True)
    return Path(asked)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Raw micrographs of one protein, and the (y, x) px of all particles on each."""
    folder = tmp_path_factory.mktemp("simulated")
    simulate_dataset(
        folder / "set", n_train=5, n_val=1, n_test=1, size_px=(1400, 1400), proteins=["SIM-002"],
        snr=[0.09, 0.14], density=0.8, junk=0.5, mrc=True, seed=3,
    )  # fmt: skip
    (folder / "raw").mkdir()
    truth = {}
    for path in sorted((folder / "set" / "mrc").glob("*.mrc")):
        name = f"grid2_{path.stem.removeprefix('mic_0')}.mrc"
        shutil.copy(path, folder / "raw" / name)
        with (folder / "set" / "truth" / f"{path.stem}.csv").open() as file:
            rows = list(csv.DictReader(file))
        truth[name] = [(float(r["Y-Coordinate"]), float(r["X-Coordinate"])) for r in rows]
    return folder / "raw", truth


@pytest.fixture(scope="module")
def page(simulated, tmp_path_factory):
    """A window on the page of these micrographs, with a network to train."""
    raw, _ = simulated
    folder = tmp_path_factory.mktemp("labelled")
    width, steps = (8, 500) if os.environ.get("SCREENSHOTS") else (4, 60)
    (folder / "config.yaml").write_text(CONFIG.format(width=width, steps=steps))
    server = Server(
        raw, folder / "labels", "--config", str(folder / "config.yaml"), diameter="165A"
    )
    with started() as browser:
        window = Window(browser, server)
        window.folder = folder / "labels"
        yield window
        for path in (folder / "labels").glob("rounds/*"):
            (path / STOP).touch()  # where a test did not come to its end
        window.close()
    server.end()


def taken(window, path):
    """Take a picture of the window; return the pixels of the micrograph in it."""
    window.page.mouse.move(2, 2)  # no pointer in the picture
    window.page.wait_for_timeout(300)
    thumbnails = (
        "Array.from(document.querySelectorAll('.micrograph img')).every(i => i.naturalWidth)"
    )
    until(lambda: window.page.evaluate(thumbnails), "the thumbnails")
    window.page.screenshot(path=path, type="jpeg", quality=QUALITY)
    picture = np.asarray(Image.open(path)).astype(int)
    assert picture.shape == (850, 1300, 3)
    return picture[50:690, :1030]


def n_near(picture, colour):
    """Return how many pixels have a colour, but for what JPEG makes of it."""
    return int((np.abs(picture - colour).max(axis=2) < 50).sum())


def inner(places, margin_px=60):
    """Return the places that are not at the edges."""
    return [(y, x) for y, x in places if min(y, x) > margin_px and max(y, x) < 1400 - margin_px]


def test_clicks_on_a_micrograph_with_junk(page, simulated, folder):
    _, truth = simulated
    name = sorted(truth)[3]
    page.open(name)
    for y, x in inner(truth[name])[:16]:
        page.click(y, x)
    for y, x in ((860, 1140), (1000, 1250)):
        page.click(y, x, "Shift")
    page.press("b")
    for _ in range(3):
        page.press("]")
    page.drag((80, 120), (80, 620), (150, 1000), (330, 1380))
    page.press("p")
    page.saved()
    picture = taken(page, folder / "clicks.jpg")
    marks = page.marks()
    assert (sum(mark[2] for mark in marks), len(marks)) == (16, 18)
    assert n_near(picture, PARTICLE) > 16 * 80 and n_near(picture, NEGATIVE) > 2 * 80


def test_proposals_with_their_scores_and_a_threshold(page, simulated, folder):
    _, truth = simulated
    *complete, _, _, _, shown = sorted(truth)
    for name in complete:
        page.open(name)
        centres = [list(place) for place in truth[name] if min(place) > 0 and max(place) < 1400]
        page.page.evaluate("centres => labelling.act('accept', {centres})", centres)
        page.press("c")
        page.saved()
    page.page.click("#train")
    until(lambda: " left of this step" in page.text("#round-text"), "the training", 600)
    page.page.locator("#learning").screenshot(path=folder / "training.jpg", type="jpeg")
    page.open(shown)
    until(lambda: "is done" in page.text("#round-text"), "the end of the round", 900)
    proposals = until(lambda: page.page.evaluate("labelling.proposals()"), "proposals")
    until(lambda: "most uncertain" in page.text("#next-why"), "what to look at next")
    if not 20 < len(proposals) < 80:  # as somebody would who sees too few or too many
        page.page.locator("#threshold").fill("0")
        scores = sorted((s for *_, s in page.page.evaluate("labelling.proposals()")), reverse=True)
        page.page.locator("#threshold").fill(f"{np.floor(200 * scores[60]) / 200:.3f}")
        proposals = page.page.evaluate("labelling.proposals()")
    inside = np.array(inner([place for *place, _ in proposals]))
    # As somebody sees who knows particles
    off = np.hypot(*(inside[:, None] - np.array(truth[shown])).T).min(axis=0)
    right, wrong = inside[off.argsort()[:4]].tolist(), inside[off.argsort()[-2:]].tolist()
    for y, x in right:
        page.click(y, x)
    for y, x in wrong:
        page.click(y, x, "Shift")
    page.saved()
    marked = [[*place, True] for place in right] + [[*place, False] for place in wrong]
    np.testing.assert_allclose(page.marks(), marked, atol=0.1)
    picture = taken(page, folder / "proposals.jpg")
    n_left = len(page.page.evaluate("labelling.proposals()"))
    assert n_left <= len(proposals) - 6
    assert page.text("#n-proposals") == str(n_left)
    assert page.text("#accept-all") == f"Accept all {n_left}"
    assert n_near(picture, PARTICLE) > 4 * 80 and sum(n_near(picture, c) for c in PROPOSED) > 300
    assert "on the 3 complete micrographs" in page.text("#quality")


def test_the_keys(page, folder):
    page.press("?")
    taken(page, folder / "keys.jpg")
    assert page.page.locator("#help").is_visible()
    page.press("Escape")
    pictures = sorted((ROOT / "docs" / "labelling").glob("*.jpg"))
    assert [path.stem for path in pictures] == ["clicks", "keys", "proposals", "training"]
    assert sum(path.stat().st_size for path in pictures) < MOST_BYTES
