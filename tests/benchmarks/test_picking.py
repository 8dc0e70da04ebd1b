"""The benchmark of picking: what follows from a set, drawing of labels, scoring, Topaz's files."""

import argparse
import sys

import numpy as np
import pytest

from benchmarks import picking, picking_figure, real_sets, topaz
from benchmarks.real_sets import RealSet, draw_labels, evaluate
from picking.errors import UserError
from picking.files import write_json
from picking.formats.picks import Picks
from picking.micrographs.mrc import write_mrc
from tests.fixtures.data_sets import DIAMETER_PX, N_PARTICLES, SIZE_PX, write_data_set


@pytest.fixture
def real(tmp_path, monkeypatch):
    monkeypatch.setattr(real_sets, "FOLDER", tmp_path / "results")
    write_data_set(tmp_path / "tiny")
    return RealSet(tmp_path / "tiny")


def found(centres_px, scores=None):
    scores = np.linspace(0.9, 0.8, len(centres_px)) if scores is None else np.asarray(scores)
    diameters = np.full(len(scores), float(DIAMETER_PX))
    return Picks("a", np.asarray(centres_px, float), scores, diameters, SIZE_PX)


def test_diameter_margin_and_number_expected_are_those_of_train(real):
    nearest_px = min(min(m.centres_px.min(), (m.size_px - m.centres_px).min()) for m in real.train)
    assert real.diameter_px == DIAMETER_PX
    assert real.expected == N_PARTICLES
    assert real.margin_px == int(nearest_px)
    assert RealSet(real.root, asked_margin_px=7).margin_px == 7


@pytest.mark.parametrize(
    ("longest_px", "diameter_px", "tiles"),
    [(4096, 108, (6, 128)), (1240, 78, (2, 160)), (1024, 36, (4, 144)), (100, 200, (1, 16))],
)
def test_tiles_show_particles_about_20_px_wide(longest_px, diameter_px, tiles):
    assert real_sets.tiles_of(longest_px, diameter_px) == tiles


def test_labels_are_drawn_by_seed_and_fewer_are_some_of_the_more(real):
    def drawn(n, seed):
        some = draw_labels(real.train, "train", n, seed)
        return {(m.name, *centre) for m in some for centre in m.centres_px.tolist()}

    few, many = drawn(5, 0), drawn(20, 0)
    assert (len(few), len(many)) == (5, 20)
    assert few < many
    assert few != drawn(5, 1)
    with pytest.raises(UserError, match="31 labels of train"):
        drawn(31, 0)


def test_val_chooses_the_threshold_and_the_margin_is_left_out(real):
    real = RealSet(real.root, asked_margin_px=30)
    # On val a false pick scores 0.5, on test two true ones do
    val = {m.path.stem: found(m.centres_px) for m in real.micrographs("val")}
    one = next(iter(val))
    val[one] = found([*val[one].centres_px, (160, 190)], [*val[one].scores, 0.5])
    test = {}
    for m in real.micrographs("test"):
        inside = (np.minimum(m.centres_px, m.size_px - m.centres_px) >= 30).all(axis=1)
        rows = np.flatnonzero(inside)
        scores = np.full(N_PARTICLES, 0.9)
        scores[rows[:2]] = 0.5
        # In the margin: a pick where no particle is
        test[m.path.stem] = found([*m.centres_px, (1, 1)], [*scores, 0.9])
    result = evaluate(real, "test", val, test, half=0.5)
    n = len(rows)
    assert result["val_f1"] == 1
    assert result["precision"] == 1
    assert result["recall"] == pytest.approx((n - 2) / n)
    assert result["f1_at_half"] == 1
    assert result["f1_at_expected"] is None  # 10 are expected, and fewer lie inside
    n_whole, n_false = N_PARTICLES - 2, 1
    assert result["f1_whole_frame"] == pytest.approx(
        2 * n_whole / (n_whole + n_false + N_PARTICLES)
    )


def test_topaz_picks_return_to_the_place_in_our_micrograph(real, tmp_path):
    small, real_px = tmp_path / "small", {}
    small.mkdir()
    lines = ["image_name\tx_coord\ty_coord\tscore"]
    for m in real.micrographs("val"):
        write_mrc(small / f"{m.path.stem}.mrc", np.zeros((SIZE_PX[0] // 4, SIZE_PX[1] // 4)), 1)
        real_px[m.path.stem] = m.centres_px
    stem, other = real_px
    lines += [f"{stem}\t{x / 4}\t{y / 4}\t{-1.5}" for y, x in real_px[stem]]
    table = tmp_path / "picks.txt"
    table.write_text("\n".join(lines) + "\n")
    candidates = topaz.read_candidates(table, real.micrographs("val"), small)
    np.testing.assert_allclose(candidates[stem].centres_px, real_px[stem])
    assert set(candidates[stem].scores) == {-1.5}
    assert len(candidates[other].scores) == 0


def test_topaz_learns_from_the_labels_that_few_labels_has(real, tmp_path):
    path = topaz.write_targets(real, 4, 12, 3, tmp_path / "targets.txt")
    header, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    ours = draw_labels(real.train, "train", 12, 3)
    assert header == ["image_name", "x_coord", "y_coord"]
    assert [(name, int(x), int(y)) for name, x, y in rows] == [
        (m.path.stem, x // 4, y // 4) for m in ours for y, x in m.centres_px.tolist()
    ]


@pytest.mark.parametrize(
    ("diameter_px", "scales"), [(108, [3, 4, 5, 8]), (36, [1, 2, 3]), (9, [1])]
)
def test_topaz_sees_particles_at_several_widths(diameter_px, scales):
    assert topaz.scales_of(diameter_px) == scales


def test_topaz_is_given_the_prior_that_it_then_trains_on():
    # Disks of 81 px in 10,000; of 50 particles 10 are picked, which it counts 11 times each
    assert topaz.prior_to_give(50, 10, 5, 10_000, is_pu=True) == pytest.approx(0.405)
    given = topaz.prior_to_give(50, 10, 5, 10_000, is_pu=False)
    assert given - 10 * 81 * 11 / 10_000 == pytest.approx(40 * 81 / 10_000)


def test_a_result_that_is_there_is_read_and_other_settings_are_refused(tmp_path):
    def runs_once():
        runs.append(1)
        return {"f1": 0.5}

    runs: list[int] = []
    args = argparse.Namespace(split="val", name="", annotated_margin=None)
    for _ in range(2):
        result = picking.result_of(args, tmp_path, "ours", {"set": []}, runs_once)
        assert (result["picker"], result["f1"]) == ("ours", 0.5)
    assert runs == [1]
    with pytest.raises(UserError, match="give a --name"):
        picking.result_of(args, tmp_path, "ours", {"set": ["a=1"]}, runs_once)


def test_the_figure_is_drawn_from_the_results_that_are_there(tmp_path, monkeypatch):
    general, peer = picking_figure.NO_LABELS
    monkeypatch.setattr(picking_figure, "FOLDER", tmp_path)
    monkeypatch.setattr(picking_figure, "PICTURE", tmp_path / "figure.png")
    with pytest.raises(UserError, match="no result on test"):
        picking_figure.draw()
    shown = [("few labels", 40, ""), ("few labels, from general", 40, ""), (peer, 0, "")]
    for picker, labels, name in (*shown, ("few labels", 40, "_w16"), (general, 0, "")):
        folder = tmp_path / "ribosome-10028" / f"{picker}{name}"
        folder.mkdir(parents=True)
        result = {"picker": picker, "labels": labels, "f1": 0.8, "name": name}
        write_json(folder / "result_test.json", result)
    drawn = picking_figure.results_of("ribosome-10028")
    named = {one["picker"]: one["name"] for one in drawn}
    assert named == {**dict.fromkeys((picker for picker, *_ in shown), ""), general: ""}
    picking_figure.draw()
    assert (tmp_path / "figure.png").exists()


def test_topaz_must_be_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["picking", "topaz", "--picks", "40", "10"])
    with pytest.raises(UserError, match="--topaz is missing"):
        picking.parse_args()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["general"], "--start is missing"),
        (["general", "--start", "nowhere.pt"], "nowhere.pt is not a file"),
        (["segmentation", "--start", "any.pt"], "--start says nothing of segmentation"),
    ],
)
def test_a_general_network_must_be_there_and_of_use(monkeypatch, flags, message):
    monkeypatch.setattr(sys, "argv", ["picking", *flags])
    with pytest.raises(UserError, match=message):
        picking.parse_args()
