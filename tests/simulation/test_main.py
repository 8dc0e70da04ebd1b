"""The command line: a data set and its figure."""

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
