"""K4: micrographs of any name are picked and read back, or refused before any is picked."""

import shlex
import shutil

import starfile

from picking.formats.coordinates import FORMATS, file_of, files_of_all, read_picks

from . import base
from .base import rows, star
from .case import EITHER, LABELS, PICKING, Case

SIZE_PX = (200, 240)
ODD_STEMS = {
    "an underscore first": "_001", "data_ first": "data_001", "data_ alone": "data_",
    "loop_ first": "loop_1", "loop_ alone": "loop_", "save_ first": "save_x", "stop_": "stop_",
    "global_": "global_", "a number sign": "scan#1", "a number sign first": "#1",
    "an apostrophe": "John's", "an apostrophe first": "'x", "a quotation mark": 'a"b',
    "both quotes": "a'b\"c", "a blank": "my mic", "two blanks": "my  mic", "blank first": " x",
    "a tab": "a\tb", "a newline": "a\nb", "a carriage return": "a\rb", "a null-like name": "None",
    "nan": "nan", "NA": "NA", "true": "true", "a number": "0012", "a number as floats are": "1e5",
    "a long number": "12345678901234567890", "a dollar": "$x", "a semicolon first": ";x",
    "a comma": "a,b", "an equals sign first": "=1+1", "a dash first": "-x", "an at sign": "1@x",
    "a bracket": "a[1]", "a star": "a*b", "a question mark": "a?b", "a backslash": "a\\b",
    "two dots": "a..b", "a dot first": ".x", "a suffix within": "a.mrc", "umlauts": "Ünïcode",
    "umlauts in parts": "U\u0308", "Chinese": "样品", "an emoji": "🔬",
    "a line separator": "a\u2028b",
    "a wide blank": "a\u3000b", "a byte order mark": "\ufeffx", "a control character": "a\x07b",
    "bytes that are no UTF-8": "a\udcffb", "220 characters": "x" * 220, "251 characters": "x" * 251,
    "120 umlauts": "ü" * 120, "a plus and a percent": "a+b%20", "a colon": "a:b", "a tilde": "~x",
    "a pipe and brackets": "a|b(c)", "a brace": "{x}",
}  # fmt: skip


def named(stem):
    """A micrograph of that name, alone in a folder, as a cut-out that is fast to pick."""

    def write(folder):
        (folder / "odd").mkdir()
        path = folder / "odd" / f"{stem}.mrc"
        base.write_mrc(path, base.counts("mic_000")[: SIZE_PX[0], : SIZE_PX[1]], base.PIXEL_SIZE)

    return write


def comes_back(stem):
    """Return a check: picked, every format gives the name back; refused, nothing was picked."""

    def check(folder, result):
        output = folder / "out"
        if result.status == 2:
            assert not output.exists() or not list(output.rglob("*.npz"))
            assert not [p for p in output.rglob("*.*") if p.suffix in (".star", ".csv", ".json")]
            return
        read = starfile.read(
            output / "star" / f"{stem}.star", parse_as_string=["rlnMicrographName"]
        )
        n = len(read)
        assert n > 5 and set(read["rlnMicrographName"]) == {f"{stem}.mrc"}
        of_micrograph = {f"{stem}.mrc": SIZE_PX}
        for kind in FORMATS:
            file = files_of_all(output, kind)[0]
            if kind != "cs":
                file = file_of(output, kind, f"{stem}.mrc")
            (again,) = read_picks([file], of_micrograph, only_known=True)
            assert (again.name, len(again.centres_px)) == (f"{stem}.mrc", n), kind

    return check


def folder_called(name):
    def write(folder):
        (folder / name).mkdir()
        for path in (base.made() / "raw").iterdir():
            (folder / name / path.name).symlink_to(path)
        (folder / "inside.star").write_text(star(rows()))

    return write


def spectra(*names):
    """Micrographs, and beside them what other programs write under the same suffix."""

    def write(folder):
        raw = base.own_raw(folder)
        for name in names:
            shutil.copy(raw / "mic_000.mrc", raw / name)

    return write


MANY = {"data_001.mrc": 0, "scan#1.mrc": 1, "Ünï.mrc": 2, "a b.mrc": 3}


def many(folder):
    raw = base.own_raw(folder)
    for name, i in MANY.items():
        (raw / f"mic_00{i}.mrc").rename(raw / name)


def all_come_back(folder, result):
    read = starfile.read(folder / "out/picks.star", parse_as_string=["rlnMicrographName"])
    assert set(read["rlnMicrographName"]) == set(MANY)
    again = base.run(
        "pick", "--micrographs", "raw/*.mrc", "--evaluate", "out/picks.star", "--picks",
        "out/picks.csv", "--diameter", "24px", "--output", "again",
    )  # fmt: skip
    report = base.json.loads((folder / "again/evaluation.json").read_text())
    assert again.status == 0 and report["recall"] == 1 and report["n_truth"] > 150


def refused_before(folder, result):
    assert not list(folder.rglob("out/**/*.npz"))


def one_is_bad(folder):
    raw = base.own_raw(folder)
    (raw / "mic_003.mrc").rename(raw / "z\n.mrc")


CASES = [
    *[Case(f"K4 {what}", f"{PICKING} odd/*.mrc odd/.*.mrc --formats {' '.join(FORMATS)}".replace(
           " odd/.*.mrc", " odd/.x.mrc" if stem == ".x" else ""), named(stem), **EITHER,
           check=comes_back(stem)) for what, stem in ODD_STEMS.items()],
    Case("K4 four odd names in one file", f"{PICKING} raw/*.mrc --one-file --formats star csv",
         many, n=180, check=all_come_back),
    Case("K4 an odd name among good ones", f"{PICKING} raw/*.mrc", one_is_bad, **EITHER,
         check=lambda folder, result: refused_before(folder, result)
         if result.status == 2 else None),
    Case("K4 bytes that are no UTF-8 for cryoSPARC", f"{PICKING} odd/*.mrc --formats cs",
         named("a\udcffb"), 2, ("UTF-8",), check=refused_before),
    # Folders
    *[Case(f"further the folder {name}", f"{LABELS} inside.star --micrographs "
           f"{shlex.quote(name + '/*.mrc')}", folder_called(name), n=80)
      for name in ("data [1]", "a*b", "a?", "John's", "ünï", "[x]", "a b")],
    Case("further brackets, without a pattern", f"{LABELS} inside.star --micrographs "
         "'data [1]/mic_000.mrc' 'data [1]/mic_001.mrc' 'data [1]/mic_002.mrc' "
         "'data [1]/mic_003.mrc'", folder_called("data [1]"), n=80),
    Case("further labels in a folder with brackets", f"{LABELS} 'a [1]/*.star'",
         lambda folder: ((folder / "a [1]").mkdir(), (folder / "a [1]/p.star").write_text(
             star(rows()))), n=80),
    Case("further a folder for --micrographs", f"{LABELS} picks.star --micrographs raw",
         **EITHER, n=80),
    Case("further a folder for --labels", f"{LABELS} coords", lambda folder: (
        (folder / "coords").mkdir(), (folder / "coords/p.star").write_text(star(rows()))),
        **EITHER, n=80),
    Case("further power spectra in a pattern", f"{LABELS} picks.star", spectra("mic_000_PS.mrc",
         "mic_001_PS.mrc"), (0, 2), ("_PS",), n=80, check=lambda folder, result: None
         if result.status else _four_images(result)),
    Case("further power spectra in a pattern, picking", f"{PICKING} raw/*.mrc",
         spectra("mic_000_PS.mrc"), (0, 2), ("_PS",), n=180),
    Case("further a micrograph whose own name ends so, named outright",
         f"{PICKING} raw/mic_000_PS.mrc", spectra("mic_000_PS.mrc"), (0, 2), ("_PS",), n=45),
    Case("further a missing folder", f"{LABELS} picks.star --micrographs 'nowhere/*.mrc'",
         status=2, says=("nowhere",)),
]  # fmt: skip


def _four_images(result):
    assert result.out.count("Total images: 3") + result.out.count("Total images: 1") == 2
