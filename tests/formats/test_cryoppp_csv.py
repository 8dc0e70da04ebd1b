import numpy as np
import pytest

from picking.errors import UserError
from picking.formats.cryoppp_csv import read_csv, read_csv_of_one
from tests.fixtures.data_sets import write_csv

HEADER = "X-Coordinate,Y-Coordinate,Diameter\n"


def test_further_columns_their_order_and_their_case_do_not_matter(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "\ufeffX-Coordinate, diameter ,Y-COORDINATE,Class\r\n2.5,20,1.5,a\r\n\r\n", encoding="utf-8"
    )
    (picks,) = read_csv(path)
    assert (picks.name, picks.centres_px.tolist()) == ("a", [[1.5, 2.5]])
    assert picks.diameters_px.tolist() == [20] and np.isnan(picks.scores).all()


def test_of_one_micrograph_all_rows_count_whatever_they_name_or_score(tmp_path):
    path = tmp_path / "a.csv"
    header = "X-Coordinate,Y-Coordinate,Diameter,Micrograph,Score\n"
    path.write_text(f"{header}2,1,20,one,high\n3,5,20,two,-\n8,9,0,one,1\n")
    picks = read_csv_of_one(path)
    assert picks.centres_px.tolist() == [[1, 2], [5, 3]] and picks.n_zero_area == 1


def test_rows_without_a_diameter_are_no_picks(tmp_path):
    write_csv(tmp_path / "a.csv", [(1, 2)], diameter_px=0)
    (picks,) = read_csv(tmp_path / "a.csv")
    assert (picks.name, len(picks.centres_px)) == ("a", 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no column x-coordinate, y-coordinate"),
        ("x,y,diameter\n1,2,3\n", "no column x-coordinate, y-coordinate"),
        ("X-Coordinate,Y-Coordinate,Diameter,diameter\n1,2,3,4\n", "each once"),
        (HEADER + "1,2,3\n1,two,3\n", "line 3.*1,two,3"),
        (HEADER + "1,2\n", "line 2"),
        (HEADER + "1,nan,3\n", "line 2"),
        (HEADER + "1,2,inf\n", "line 2"),
        (HEADER + "1e300,5,20\n", "line 2"),
        (HEADER + "5,5,1e300\n", "line 2"),
        (HEADER.encode() + b"\xff,2,3\n", "is no text file"),
        (HEADER + '"' + "9" * 200_000, "cannot be read as CSV"),
    ],
)
@pytest.mark.parametrize("read", [read_csv, read_csv_of_one])
def test_a_malformed_csv_is_named_with_what_is_wrong(tmp_path, content, words, read):
    path = tmp_path / "broken.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"broken\.csv.*{words}"):
        read(path)


def test_picks_need_no_column_of_diameters_but_a_data_set_does(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("Micrograph,X_Coordinate,y coordinate\nb,2.5,1.5\na,9,8\nb,3,4\n")
    by_name = {one.name: one for one in read_csv(path)}
    assert by_name["b"].centres_px.tolist() == [[1.5, 2.5], [4, 3]]
    assert by_name["a"].centres_px.tolist() == [[8, 9]]
    assert np.isnan(by_name["b"].diameters_px).all() and by_name["b"].n_zero_area == 0
    with pytest.raises(UserError, match=r"a\.csv has no column diameter: .* and Diameter, each"):
        read_csv_of_one(path)


@pytest.mark.parametrize("score", ["high", "inf", "1e300"])
def test_a_score_that_is_no_number_is_refused(tmp_path, score):
    (tmp_path / "a.csv").write_text(f"{HEADER.strip()},Score\n1,2,3,{score}\n")
    with pytest.raises(UserError, match=r"a\.csv: column Score"):
        read_csv(tmp_path / "a.csv")


ROWS = "X-Coordinate{0}Y-Coordinate{0}Diameter{0}Score\n2{1}5{0}1{0}20{0}0{1}5\n"


@pytest.mark.parametrize(
    "text",
    {
        "semicolons and decimal commas": ROWS.format(";", ","),
        "semicolons and decimal points": ROWS.format(";", "."),
        "tabs": ROWS.format("\t", "."),
        "tabs and decimal commas": ROWS.format("\t", ","),
        "a title": "Picks of Monday\n\n" + ROWS.format(",", "."),
        "Excel's first line": "sep=;\n" + ROWS.format(";", ","),
        "quotes": ROWS.format('","', ".").replace("X-", '"X-').replace("2.5", '"2.5')
        .replace("Score", 'Score"').replace("0.5", '0.5"'),
        "empty rows and cells": ROWS.format(",", ".") + ",,,\n\n,,,,,\n",
        "carriage returns": ROWS.format(",", ".").replace("\n", "\r\n"),
        "UTF-16": ROWS.format(",", ".").encode("utf-16"),
    }.values(),
)  # fmt: skip
def test_what_spreadsheets_write_is_read(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (picks,) = read_csv(path)
    assert (picks.centres_px.tolist(), picks.diameters_px.tolist()) == ([[1, 2.5]], [20])
    assert picks.scores.tolist() == [0.5] and picks.name == "a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER + "2,5,1,5,20,0\n", "line 2.*as many cells"),  # decimal commas among commas
        (HEADER.replace(",", ";") + "1.234,5;2;20\n", "line 2"),
        ("X-Coordinate," + HEADER + "1,2,3,4\n", "header must name .* once"),
        ("Micrograph," + HEADER + "a,1,2,3\n,4,5,6\n", "Micrograph is empty in row 2 of 2"),
        (HEADER.strip() + ",Micrograph\n1,2,3,a\n4,5,6\n", "Micrograph is empty in row 2 of 2"),
        (HEADER + "1,2,3\n" + HEADER + "4,5,6\n", "line 3"),  # one file behind another
    ],
)
def test_rows_that_would_be_misread_are_refused(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=rf"a\.csv.*{words}"):
        read_csv(tmp_path / "a.csv")
