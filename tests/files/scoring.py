"""K11 and what comes of use: numbers that mislead, and work that is done twice."""

import json
from unittest import mock

from . import base
from .base import DIAMETER_PX, STEMS, rows, star
from .case import LABELS, PICKING, PICKS, Case

AUTO = PICKS.replace("--annotated-margin 0 ", "")
SCORED = ("MicrographName", "CoordinateX", "CoordinateY", "AutopickFigureOfMerit")


def centre_only(stem, n=4):
    """The particles next to the middle of a micrograph, in the MRC's frame."""
    middle = (base.HEIGHT / 2, base.WIDTH / 2)
    nearest = sorted(base.centres(stem), key=lambda c: (c[0] - middle[0]) ** 2
                     + (c[1] - middle[1]) ** 2)[:n]  # fmt: skip
    return [(f"{stem}.mrc", x, base.HEIGHT - y) for y, x in nearest]


CENTRAL = {"a.star": star(centre_only("mic_000"))}


def margin_is_small(folder, result):
    assert json.loads((folder / "out/evaluation.json").read_text())["margin_px"] <= DIAMETER_PX


def scored(*scores, of=rows):
    """Picks with these scores, one after the other, and over again."""
    return {"a.star": star([(*r, scores[i % len(scores)]) for i, r in enumerate(of())], "", SCORED)}


NO_PICKS = star([], "", SCORED)
OWN_EMPTY = f"{PICKING} raw/*.mrc --one-file --threshold 0.99999999 --formats csv"
EMPTY_AGAIN = (f"{AUTO} out/picks.csv").replace("--output out", "--output again")
AWAY = {"a.star": star([(n, 5.0, 5.0 + i % 20 * 20) for i, (n, _, _) in enumerate(rows())])}
RESUMED = f"{PICKING} raw/*.mrc --resume"


def check_recall_zero(folder, result):
    assert json.loads((folder / "again/evaluation.json").read_text())["recall"] == 0


def no_inference(command, *more):
    """A case in which picking goes on with other flags, and no network may be asked again."""

    def check(folder, result):
        assert result.status in (0, 2), result.err
        from picking.detection import micrographs

        with mock.patch.object(micrographs, "pick", side_effect=AssertionError("inference again")):
            again = base.run(*f"{PICKING} raw/mic_000.mrc --resume {' '.join(more)}".split())
        assert again.status == 0, again.err
        for pattern in command:
            assert list(folder.glob(pattern)), pattern

    return check


CASES = [
    Case("K11 four truths in the middle", f"{AUTO} truth.star --evaluate a.star", CENTRAL, 0,
         ("margin",), recall=1.0, check=margin_is_small),
    Case("K11 four truths in the middle: how many picks were left out is said",
         f"{AUTO} truth.star --evaluate a.star", CENTRAL, 0, (r"\b\d+ (of \d+ )?picks|left out",)),
    Case("K11 a margin that was asked for is kept", f"{AUTO} truth.star --annotated-margin 100", {},
         0, ("margin of 100",)),
    Case("K11 the diameter that the checkpoint knows does for the evaluation",
         f"{PICKING} raw/mic_000.mrc raw/mic_001.mrc --evaluate truth.star --annotated-margin 0",
         status=0, says=("diameter 24",), recall=1.0),
    *[Case(f"K11 a threshold of {t}", f"{PICKS} a.star --threshold {t}",
           scored(3.0, 1.0, -1.5), n=n, warns=() if n else ("highest score is 3",))
      for t, n in (("2", 27), ("-1", 54), ("-5", 80), ("0.5", 54), ("1e3", 0))],
    *[Case(f"K11 no threshold: {t}", f"{PICKS} a.star --threshold {t}", scored(3.0, 1.0), 2,
           ("threshold",)) for t in ("nan", "inf", "x", "''")],
    Case("K11 a threshold of a checkpoint is a probability", f"{PICKING} raw/mic_000.mrc "
         "--threshold 2", status=2, says=("threshold",)),
    *[Case(f"K11 a diameter of {d} in picking", f"{PICKING} raw/mic_000.mrc --diameter {d}",
           status=2, says=("diameter",), never="npz") for d in ("1e9px", "641px", "150px", "4px")],
    *[Case(f"K11 a diameter of {d} in scoring", f"{PICKS} picks.star --diameter {d}",
           status=2, says=("diameter",)) for d in ("1e9px", "5000px", "150px", "4px")],
    # An empty STAR file is not written, since other programs fall over it
    Case("K11 an empty table that we wrote", EMPTY_AGAIN, status=0, says=("recall",),
         before=(OWN_EMPTY,), check=check_recall_zero),
    Case("K11 an empty table", f"{PICKS} a.star", {"a.star": NO_PICKS}, 0, ("recall",), n=0,
         recall=0.0, n_truth=180),
    Case("K11 empty tables, one for each micrograph", f"{PICKS} mic_*.star",
         {f"{s}.star": star([], "", SCORED[1:]) for s in STEMS}, 0, ("recall",), n=0, recall=0.0,
         n_truth=180),
    Case("K11 an empty table as labels", f"{LABELS} a.star", {"a.star": NO_PICKS}, 2,
         ("a.star|pick",)),
    Case("K11 no picks on a micrograph that has truth", f"{PICKS} a.star",
         {"a.star": star(rows("mic_000", "mic_001", "mic_002"))}, 0, ("mic_003|1 micrograph",)),
    Case("K11 no picks above the threshold: the highest score is said",
         f"{PICKING} raw/mic_000.mrc --threshold 0.999999", status=0,
         says=("highest", r"0\.9\d+", "threshold"), n=0),
    Case("K11 recall 0, and why", f"{PICKS} a.star", AWAY, (0, 2),
         warns=("frame|scale|binned|random|fit|contrast|corner",)),
    Case("K11 one micrograph, one particle", f"{AUTO} a.star --evaluate a.star --micrographs "
         "raw/mic_000.mrc", {"a.star": star(rows("mic_000", n=1))}, recall=1.0),
    # From use
    Case("use --resume with other formats", f"{PICKING} raw/mic_000.mrc", n=45,
         check=no_inference(["out/box/*.box", "out/star/*.star"], "--formats", "star", "box")),
    Case("use --resume with overlays", f"{PICKING} raw/mic_000.mrc", n=45,
         check=no_inference(["out/overlays/*.png"], "--overlay")),
    Case("use --resume with another threshold", f"{PICKING} raw/mic_000.mrc", n=45,
         check=no_inference(["out/star/*.star"], "--threshold", "0.3")),
    Case("use --expected-particles on three micrographs", "pick --checkpoint own.pt --device cpu "
         "--micrographs raw/mic_000.mrc raw/mic_001.mrc raw/mic_002.mrc --expected-particles 45",
         lambda folder: (folder / "own.pt").write_bytes((base.made() / "tiny.pt").read_bytes()),
         says=("chosen|threshold",)),
    Case("use --expected-particles beyond what there is", "pick --checkpoint own.pt --device cpu "
         "--micrographs raw/mic_000.mrc --expected-particles 700",
         lambda folder: (folder / "own.pt").write_bytes((base.made() / "tiny.pt").read_bytes()),
         (0, 2), ("candidates|expected",)),
]  # fmt: skip
