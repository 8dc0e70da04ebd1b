"""COCO JSON and CryoPPP's CSV as annotation of a data set."""

import pytest

from picking import annotations, headers

from . import originals
from .mutators import damaged_json, damaged_text
from .oracle import outcome, run_cases


def read_and_plan(root, split):
    """Read a split, its sizes too, and look which particles lie inside."""
    listed = annotations.read_split(root, split)
    records, sizes = headers.read_headers(listed, None, [], False, 0, 0)
    return headers.largest_margin({split: records}, {split: sizes})


def coco(draw, folder):
    root = originals.copy(originals.data_set(), folder / "data")
    path = root / "annotations" / "instances_train.json"
    path.write_bytes(draw(damaged_json(path.read_bytes())))
    return outcome(lambda: read_and_plan(root, "train"), ["train"])


def csv(draw, folder):
    root = originals.copy(originals.data_set(), folder / "data")
    path = root / "particle_coordinates" / "test_00.csv"
    path.write_bytes(draw(damaged_text(path.read_text())))
    return outcome(lambda: read_and_plan(root, "test"), ["test_00"])


def empiar_ids(draw, folder):
    root = originals.copy(originals.data_set(), folder / "data")
    path = root / annotations.MAPPING_FILE
    path.write_bytes(draw(damaged_text("file_name,empiar_id\ntrain_00.jpg,10017\nx.jpg,1\n")))
    return outcome(lambda: read_and_plan(root, "train"), [path.name])


CASES = {coco: 120, csv: 60, empiar_ids: 30}


@pytest.mark.parametrize("case", CASES)
def test_damaged_annotations_are_read_or_refused_in_one_sentence(case):
    run_cases(case, CASES[case])
