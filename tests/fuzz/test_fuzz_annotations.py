"""COCO JSON and CryoPPP's CSV as annotation of a data set."""

import json
import shutil

import pytest
from hypothesis import strategies as st

from picking.inputs import annotations
from picking.preprocessing import image_sizes

from . import originals
from .mutators import HOSTILE_NAMES, damaged_json, damaged_text
from .oracle import ENDS, outcome, run_cases, short


def read_and_plan(root, split):
    """Read a split, its sizes too, and look which particles lie inside."""
    listed = annotations.read_split(root, split)
    records, sizes = image_sizes.read_headers(listed, None, [], False, 0, 0)
    return image_sizes.distances_to_edge(records, sizes)


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


def names(draw, folder):
    """Names of images that lead out of the split's folder, by themselves or by a link."""
    root = originals.copy(originals.data_set(), folder / "data")
    outside = folder / "outside"
    outside.mkdir()
    image = root / "train" / "train_00.jpg"
    secret = outside / draw(st.sampled_from(("secret.jpg", "train_00.jpg", "a\nb.jpg", "x y.png")))
    shutil.copy(image, secret)
    link = root / "train" / draw(st.sampled_from(("link.jpg", "train_00.jpg", "down")))
    link.unlink(missing_ok=True)
    link.symlink_to(draw(st.sampled_from((secret, outside, folder / "nowhere", link))))
    ways = (
        str(secret),
        f"../../outside/{secret.name}",
        f"down/{secret.name}",
        "link.jpg",
        f"./../train/../../outside/{secret.name}",
        "..\\..\\outside\\x.jpg",
        *HOSTILE_NAMES,
    )
    path = root / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = draw(st.sampled_from(("train_00.jpg", *ways)))
    path.write_text(json.dumps(content))

    def read():
        read_and_plan(root, "train")
        for micrograph in annotations.read_split(root, "train").micrographs:
            assert micrograph.path.resolve().is_relative_to((root / "train").resolve())

    return outcome(read, ["train"])


CASES = {coco: 120, csv: 60, empiar_ids: 30, names: 60}


@pytest.mark.parametrize("case", CASES)
def test_damaged_annotations_are_read_or_refused_in_one_sentence(case):
    assert set() < run_cases(case, short(CASES[case])) <= ENDS
