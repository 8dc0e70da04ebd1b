"""The command line: a data set and its figure."""

import json
import sys

import pytest
from PIL import Image

from picking.errors import UserError
from picking.simulation import __main__ as script


def test_it_writes_a_set_and_its_figure_and_does_neither_twice_nor_with_other_arguments(
    tmp_path, monkeypatch, capsys
):
    figure = tmp_path / "figure.png"
    asked = "--micrographs-train 1 --micrographs-val 0 --micrographs-test 0 --size 192 256"
    asked += f" --pixel-size 4 --output {tmp_path / 'set'}"
    monkeypatch.setattr(sys, "argv", ["simulator", *asked.split()])
    script.main()
    assert "simulated micrographs are in" in capsys.readouterr().out
    sys.argv += ["--figure", str(figure)]
    script.main()
    assert "already done" in capsys.readouterr().out
    assert figure.stat().st_size < 500_000
    with Image.open(figure) as image:
        assert image.size[0] >= 1000
    sys.argv += ["--density", "0.5"]
    with pytest.raises(UserError, match=r"density 1.0, not 0.5"):
        script.main()


@pytest.mark.parametrize(
    ("given", "names"),
    [("2", ["SIM-001", "SIM-002"]), ("SIM-009", ["SIM-009"]), ("SIM-003 SIM-001", None)],
)
def test_proteins_are_a_number_or_names(given, names, tmp_path, monkeypatch):
    asked = "--micrographs-train 2 --micrographs-val 0 --micrographs-test 0 --size 192"
    asked += f" --pixel-size 4 --output {tmp_path / 'set'} --proteins {given}"
    monkeypatch.setattr(sys, "argv", ["simulator", *asked.split()])
    script.main()
    record = json.loads((tmp_path / "set" / "simulation.json").read_text())
    assert [protein["name"] for protein in record["proteins"]] == (names or given.split())
