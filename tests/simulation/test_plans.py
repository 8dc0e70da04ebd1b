"""Plans of micrographs: which proteins they show."""

from dataclasses import replace

from picking.simulation.plans import Arguments, plan_dataset
from picking.simulation.proteins import PROTEINS


def test_proteins_come_in_the_proportion_asked_for_and_in_every_split():
    asked = Arguments(150, 15, 15, (192, 192), n_proteins=4, protein_ratio=2.0, seed=3)
    plans = plan_dataset(asked)
    for split, counts in {"train": [80, 40, 20, 10], "val": [8, 4, 2, 1]}.items():
        names = [plan.protein.name for plan in plans if plan.split == split]
        assert [names.count(protein.name) for protein in PROTEINS[:4]] == counts
        assert names != sorted(names)
    plans = plan_dataset(replace(asked, protein_ratio=1.0))
    names = [plan.protein.name for plan in plans if plan.split == "train"]
    assert {names.count(protein.name) for protein in PROTEINS[:4]} == {37, 38}
