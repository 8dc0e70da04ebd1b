import csv

import numpy as np
import pytest
from PIL import Image

from picking.evaluation.matching import match_picks, pick_metrics, pr_curve
from picking.evaluation.report import (
    COLOURS,
    MAX_OVERLAY_PX,
    TABLE,
    draw_outcome,
    draw_picks,
    draw_pr_curve,
    table_text,
    threshold_rows,
    write_table,
)
from picking.formats.picks import Picks


def picks_at(centres, scores, name="a.jpg", diameter=40.0):
    centres = np.array(centres, dtype=float).reshape(-1, 2)
    diameters = np.full(len(centres), diameter)
    return Picks(name, centres, np.array(scores, dtype=float), diameters, (300, 400))


TRUTH = picks_at([[60, 60], [60, 200], [200, 60]], [np.nan] * 3)
PICKS = picks_at([[60, 63], [200, 300], [62, 200]], [0.92, 0.7, 0.31])


def colour(name):
    return tuple(bytes.fromhex(COLOURS[name][1:]))


def colours_around(path, y, x, radius):
    """The colours right, left, above and below at ``radius``, where they are all the same."""
    image = np.asarray(Image.open(path).convert("RGB"))
    spots = [(y, x + radius), (y, x - radius), (y + radius, x), (y - radius, x)]
    ring = [
        {tuple(p) for p in image[r - 1 : r + 2, c - 1 : c + 2].reshape(-1, 3).tolist()}
        for r, c in spots
    ]
    return set.intersection(*ring)


# Overlays


def test_true_false_and_missed_are_circled_each_in_its_colour(tmp_path):
    image = np.full((300, 400), 128, np.uint8)
    draw_outcome(image, match_picks(PICKS, TRUTH), tmp_path / "o.png")
    for kind, y, x in (("true", 60, 63), ("true", 62, 200), ("false", 200, 300)):
        assert colour(kind) in colours_around(tmp_path / "o.png", y, x, 20)
    assert colour("missed") in colours_around(tmp_path / "o.png", 200, 60, 20)
    found = np.asarray(Image.open(tmp_path / "o.png"))
    missed = np.argwhere((found[:300] == colour("missed")).all(axis=2))
    assert (abs(np.hypot(*(missed - (200, 60)).T) - 20) < 3).all()  # and nowhere else
    assert (found[60, 63] == 128).all() and (found[120, 120] == 128).all()
    assert found[300:].max() == 255  # the legend


def test_the_picks_of_a_large_micrograph_are_drawn_in_its_reduced_picture(tmp_path):
    image = np.full((3000, 4000), 90, np.uint8)
    picks = picks_at([[2000, 800]], [np.nan], diameter=400)
    draw_picks(image, picks, tmp_path / "o.png")
    with Image.open(tmp_path / "o.png") as found:
        assert found.width == MAX_OVERLAY_PX and found.height < MAX_OVERLAY_PX
    assert colour("true") in colours_around(tmp_path / "o.png", 750, 300, 75)


def test_scores_are_written_beside_their_circles_where_known(tmp_path):
    image = np.full((300, 400), 128, np.uint8)
    draw_picks(image, PICKS, tmp_path / "scored.png")
    draw_picks(image, picks_at(PICKS.centres_px, [np.nan] * 3), tmp_path / "bare.png")
    scored, bare = (np.asarray(Image.open(tmp_path / f"{x}.png")) for x in ("scored", "bare"))
    rows, columns = np.nonzero((bare != scored).any(axis=2))
    assert len(rows) and abs(rows[columns < 120] - 80).max() < 12


def test_picks_without_a_diameter_are_circled_all_the_same(tmp_path):
    image = np.full((300, 400), 128, np.uint8)
    draw_picks(image, picks_at([[150, 150]], [np.nan], diameter=np.nan), tmp_path / "o.png")
    assert colour("true") in colours_around(tmp_path / "o.png", 150, 150, 8)


def test_junk_is_tinted_where_it_is_and_named_only_where_there_is_some(tmp_path):
    image = np.full((300, 400), 128, np.uint8)
    junk = np.zeros((150, 200), bool)  # at another scale
    draw_picks(image, PICKS, tmp_path / "none.png", junk)
    draw_picks(image, PICKS, tmp_path / "bare.png")
    assert (tmp_path / "none.png").read_bytes() == (tmp_path / "bare.png").read_bytes()
    junk[:, 150:] = True
    draw_picks(image, PICKS, tmp_path / "some.png", junk)
    bare, some = (np.asarray(Image.open(tmp_path / f"{x}.png")) for x in ("bare", "some"))
    changed = (bare != some).any(axis=2)
    assert changed[:300, 302:].mean() > 0.9 and not changed[:300, :298].any()
    assert changed[300:].any()


# The curve


def test_a_curve_is_drawn_and_one_without_particles_or_picks_is_empty(tmp_path):
    outcomes = {
        "ours": match_picks(PICKS, TRUTH),
        "no picks": match_picks(picks_at([], []), TRUTH),
        "no truth": match_picks(PICKS, picks_at([], [])),
    }
    for name, outcome in outcomes.items():
        draw_pr_curve(pr_curve([outcome]), tmp_path / name)
    ours, *empty = ((tmp_path / name).read_bytes() for name in outcomes)
    assert empty[0] == empty[1] != ours


# The table


def test_each_row_holds_the_metrics_at_its_threshold():
    other = picks_at([[20, 20]], [0.31], name="b.jpg")
    outcomes = [match_picks(PICKS, TRUTH), match_picks(other, picks_at([], [], name="b.jpg"))]
    rows = threshold_rows([PICKS, other], outcomes, chosen=0.31)
    assert len(rows) == 20 and [row["threshold"] for row in rows[:3]] == [0.05, 0.1, 0.15]
    for row in rows:
        metrics = pick_metrics(outcomes, row["threshold"], n_bootstrap=2)
        assert row["picks"] == metrics["n_picks"] and row["per_micrograph"] == row["picks"] / 2
        assert [row[name] for name in TABLE[3:]] == [metrics[name] for name in TABLE[3:]]
    counts = {row["threshold"]: row["picks"] for row in rows}
    assert (counts[0.3], counts[0.31], counts[0.35], counts[0.95]) == (4, 4, 2, 0)


def test_without_truth_there_are_counts_only():
    (first, *_) = threshold_rows([PICKS])
    assert first["picks"] == 3 and {first[name] for name in TABLE[3:]} == {None}


def test_scores_that_are_no_probabilities_are_cut_between_their_extremes():
    rows = threshold_rows([picks_at([[50, 50], [90, 90]], [-3, 6])])
    assert [row["threshold"] for row in rows[::9]] == pytest.approx([-3, 1.5, 6])
    assert [row["picks"] for row in rows[::9]] == [2, 1, 1]


@pytest.mark.parametrize("scale", [0.25, 0.001, 300.0])
def test_crowded_scores_are_cut_at_ranks(scale):
    rng = np.random.default_rng(0)
    scores = rng.exponential(0.1, 400) * scale
    scores[0] = max(scores[0], 20 * scale) if scale > 1 else scores[0]
    rows = threshold_rows([picks_at(rng.uniform(0, 99, (400, 2)), scores)], chosen=0.5)
    counts = [row["picks"] for row in rows]
    assert len(set(counts)) >= 15 and max(counts) == 400 and 0.5 in [r["threshold"] for r in rows]
    shown = table_text(rows).splitlines()[1:]
    assert len({line.split()[0] for line in shown}) >= 15


def test_picks_without_scores_have_no_table():
    assert threshold_rows([TRUTH]) == threshold_rows([]) == []


def test_the_table_is_shown_and_written_with_the_chosen_row_marked(tmp_path):
    rows = threshold_rows([PICKS], [match_picks(PICKS, TRUTH)], chosen=0.5)
    (line,) = [line for line in table_text(rows, 0.5).splitlines() if "chosen" in line]
    assert line.split()[:6] == ["0.500", "2", "2.0", "0.500", "0.333", "0.400"]
    assert table_text(rows).count("chosen") == 0 and " - " in table_text(rows)
    write_table(rows, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open() as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == TABLE and len(table) == len(rows)
    assert float(table[9]["threshold"]) == 0.5 and float(table[9]["f1"]) == pytest.approx(0.4)
    assert table[-1]["precision"] == ""
