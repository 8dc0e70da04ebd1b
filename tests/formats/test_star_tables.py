"""What others write into STAR files: all of it is read, or a sentence names what is not."""

import pytest

from picking.errors import InputWarning, UserError
from picking.formats.coordinates import read_picks

SIZES = {"a.jpg": (100, 200), "b.jpg": (100, 200), "c.jpg": (100, 200)}
HEAD = "loop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
BARE = "loop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n"
OPTICS = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n1 300\n\n"

pytestmark = pytest.mark.filterwarnings("error")


def read(tmp_path, text, name="picks.star", **kwargs):
    """Name -> x of its picks, in their order, of a file of this text or these bytes."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = read_picks([path], SIZES, **kwargs)
    return {picks.name: picks.centres_px[:, 1].tolist() for picks in found}


# Blocks


@pytest.mark.parametrize(
    ("text", "wanted"),
    {
        "two of one name": (f"data_\n\n{HEAD}a 1 2\na 3 4\n\n\ndata_\n\n{HEAD}b 5 6\n", "a1 a3 b5"),
        "one block a micrograph": (
            f"data_a\n{HEAD}a 1 2\n\ndata_b\n{HEAD}b 5 6\n\ndata_c\n{HEAD}c 7 8\n", "a1 b5 c7"
        ),
        "one micrograph in two": (f"data_1\n{HEAD}a 1 2\ndata_2\n{HEAD}b 3 4\na 5 6\n", "a1 a5 b3"),
        "single values": (
            "data_\n\n_rlnMicrographName a.mrc\n_rlnCoordinateX 1.5\n_rlnCoordinateY 2\n", "a1.5"
        ),
        "single values twice": (
            "data_a\n_rlnCoordinateX 1 # px\n_rlnCoordinateY 2\ndata_b\n_rlnCoordinateX 5\n"
            "_rlnCoordinateY '6'\n",
            "a1 b5",
        ),
        "a loop after single values": (f"data_\n_rlnVersion 4\n\n{HEAD}a 1 2\nb 5 6\n", "a1 b5"),
        "two loops in a block": (f"data_\n{HEAD}a 1 2\n{HEAD}b 5 6\n", "a1 b5"),
        "tables without coordinates": (
            f"data_general\n_x 1\nodd line\n\n{OPTICS}data_particles\n\n{HEAD}a 1 2\n\n"
            "data_micrographs\nloop_\n_rlnMicrographName #1\n_rlnCtf #2\nz.mrc 1\nthree cells 1\n",
            "a1",
        ),
        "columns that differ": (
            f"data_1\n{HEAD}a 1 2\ndata_2\nloop_\n_rlnCoordinateY\n_rlnAngle\n_rlnCoordinateX\n"
            "_rlnMicrographName\n6 -999 5 b.mrc\n",
            "a1 b5",
        ),
        "no line of a block": (f"{HEAD}a 1 2\n", "a1"),
    }.values(),
)  # fmt: skip
def test_every_block_with_coordinates_is_read(tmp_path, text, wanted):
    found = read(tmp_path, text)
    assert " ".join(f"{name[0]}{x:g}" for name, xs in sorted(found.items()) for x in xs) == wanted


def test_blocks_without_names_are_of_the_micrographs_that_they_are_named_after(tmp_path):
    text = f"data_a\n{BARE}1 2\n3 4\n\ndata_b\n{BARE}\ndata_elsewhere\n{BARE}5 6\n"
    with pytest.warns(InputWarning, match="1 of 3 picks are of 1 micrographs .*elsewhere"):
        found = read(tmp_path, text, only_known=True, allow_partial=True)
    assert found == {"a.jpg": [1, 3], "b.jpg": []}  # somebody looked at b
    assert read(tmp_path, f"data_c\n{BARE}1 2\n") == {"c.jpg": [1]}
    assert read(tmp_path, f"data_c\n{BARE}1 2\n", name="a_autopick.star") == {"a.jpg": [1]}
    assert read(tmp_path, f"data_particles\n{BARE}1 2\n", name="a.star") == {"a.jpg": [1]}


@pytest.mark.parametrize("blocks", [("", ""), ("particles", "particles"), ("one", "two")])
def test_several_blocks_that_name_no_micrograph_are_refused(tmp_path, blocks):
    text = "\n".join(f"data_{block}\n{BARE}1 2\n" for block in blocks)
    with pytest.raises(UserError, match=rf"a\.star has 2 blocks .*data_{blocks[0]} is"):
        read(tmp_path, text, name="a.star")


@pytest.mark.parametrize(
    ("text", "words"),
    {
        "x without y": (f"data_1\n{HEAD}a 1 2\n\ndata_2\nloop_\n_rlnMicrographName\n"
                        "_rlnCoordinateX\nb 3\n", "data_2: _rlnCoordinateX is there"),
        "a column twice": (f"data_1\n{HEAD}a 1 2\ndata_2\n{HEAD}_rlnCoordinateX\nb 3 4 5\n",
                           "data_2: column _rlnCoordinateX stands twice"),
        "a loop that is not called one": (
            f"data_1\n{HEAD}a 1 2\ndata_2\n_rlnMicrographName #1\n_rlnCoordinateX #2\n"
            "_rlnCoordinateY #3\nb 3 4\n", "line 11: 'b 3 4'"),
        "rows of no table": (f"data_1\n{HEAD}a 1 2\ndata_2\nb 3 4\n", "line 8: 'b 3 4'"),
        "a list of files beside": (
            f"data_1\n{HEAD}a 1 2\ndata_coordinate_files\nloop_\n_rlnMicrographName\n"
            "_rlnMicrographCoordinates\na.mrc a.star\n", "list of coordinate files"),
        "RELION 5's tomograms": (
            "data_particles\nloop_\n_rlnTomoName\n_rlnCenteredCoordinateXAngst\n"
            "_rlnCenteredCoordinateYAngst\nTS_1 1 2\n", "particles of tomograms"),
        "coordinates on tilt images": (
            "data_particles\nloop_\n_rlnTomoName\n_rlnCoordinateX\n_rlnCoordinateY\nTS_1 1 2\n",
            "particles of tomograms"),
        "older tomograms": (f"data_\n{HEAD}_rlnCoordinateZ\na 1 2 3\n", "tomograms"),
        "cisTEM's particles, in Å": (
            "data_\nloop_\n_cisTEMOriginalImageFilename\n_cisTEMOriginalXPosition\n"
            "_cisTEMOriginalYPosition\na.mrc 1 2\n", "cisTEM, whose positions are in Å"),
        "a row with one cell less": (f"data_\n{HEAD}a 1 2\na 3\n", "line 7: 'a 3'"),
        "a row with one cell more": (f"data_\n{HEAD}a 1 2 9\n", "line 6: 'a 1 2 9'"),
        "text behind": (f"data_\n{HEAD}a 1 2\n\n20 particles in all\n", "line 8: '20 part"),
        "decimal commas": (f"data_\n{HEAD}a 1,5 2,5\n", "_rlnCoordinateX holds no numbers"),
    }.values(),
)  # fmt: skip
def test_what_is_not_read_is_refused_by_name(tmp_path, text, words):
    with pytest.raises(UserError, match=rf"picks\.star.*{words}"):
        read(tmp_path, text)


# How it is written


@pytest.mark.parametrize(
    "text",
    {
        "capitals": f"DATA_\n{HEAD.replace('loop_', 'LOOP_')}a 1 2\nb 5 6\n",
        "carriage returns": f"data_\n{HEAD}a 1 2\nb 5 6\n".replace("\n", "\r\n"),
        "carriage returns alone": f"data_\n{HEAD}a 1 2\nb 5 6\n".replace("\n", "\r"),
        "tabs and spaces behind": f"data_ \n{HEAD}a\t1\t2 \t\n  b 5   6  \n".replace("#1", "\t#1 "),
        "no numbers of columns": f"data_\n{HEAD.replace(' #', '# ')}a 1 2\nb 5 6\n".replace(
            "#", " # "
        ),
        "no newline at the end": f"data_\n{HEAD}a 1 2\nb 5 6",
        "comments, blank lines": f"# x\n\ndata_ # x\n\n{HEAD}# x\n\na 1 2 # x\n\n # x\nb 5 6\n# x",
        "quotes": f"data_\n{HEAD}'a' 1 2\n\"b\" 5 \"6\"\n",
        "UTF-8 with its mark": b"\xef\xbb\xbf" + f"data_\n{HEAD}a 1 2\nb 5 6\n".encode(),
        "UTF-16 of Windows": f"data_\n{HEAD}a 1 2\nb 5 6\n".encode("utf-16"),
    }.values(),
)  # fmt: skip
def test_the_way_it_is_written_does_not_matter(tmp_path, text):
    assert read(tmp_path, text) == {"a.jpg": [1], "b.jpg": [5]}


def test_utf_16_without_its_mark_is_refused_with_the_cure(tmp_path):
    with pytest.raises(UserError, match=r"picks\.star is no text file in UTF-8 .*save it as"):
        read(tmp_path, f"data_\n{HEAD}a 1 2\n".encode("utf-16-le"))


@pytest.mark.parametrize("name", ["None", "NA", "nan", "null", "-1", "1e5", "#", "John's", "x#1"])
def test_whatever_a_micrograph_is_called_is_a_name(tmp_path, name):
    path = tmp_path / "picks.star"
    quoted = '"#.mrc"' if name == "#" else f"{name}.mrc"
    path.write_text(f"data_\n{HEAD}{quoted} 1 2\nz 3 4\n")
    found = read_picks([path], {f"{name}.mrc": (100, 200), "z.mrc": (100, 200)})
    assert {picks.name for picks in found} == {f"{name}.mrc", "z.mrc"}


# Particles


def test_without_a_column_of_micrographs_the_images_tell_them(tmp_path):
    head = "loop_\n_rlnImageName\n_rlnCoordinateX\n_rlnCoordinateY\n"
    rows = (
        "000001@Extract/job003/Movies/a.mrcs 1 2\n000002@Extract/job003/Movies/a.mrcs 3 4\n"
        "000001@J3/extract/000123_b_particles.mrc 5 6\n"
    )
    assert read(tmp_path, f"{OPTICS}data_particles\n\n{head}{rows}") == {
        "a.jpg": [1, 3], "b.jpg": [5]
    }  # fmt: skip
    both = f"data_particles\n{HEAD}_rlnImageName\nb.mrc 1 2 000001@Extract/job003/a.mrcs\n"
    assert read(tmp_path, both) == {"b.jpg": [1]}
