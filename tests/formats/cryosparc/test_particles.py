"""Particles of cryoSPARC, from tables with the fields and types that its jobs write."""

import numpy as np
import pytest

from picking.errors import InputWarning, UserError
from picking.formats.coordinates import read_picks
from tests.fixtures.cryosparc import (
    EXTRACTED,
    MICROGRAPH,
    locations,
    write_cs,
    write_csg,
    write_exposures,
)

SIZES = {"mic.mrc": (200, 400), "other.mrc": (200, 400)}


def centres(paths, sizes=SIZES, frame=None):
    return {p.name: p.centres_px.tolist() for p in read_picks(paths, sizes, frame)}


def alignments(uids, shifts, psize, name="alignments2D"):
    return {
        "uid": np.array(uids, "<u8"),
        f"{name}/shift": np.array(shifts, "<f4"),
        f"{name}/psize_A": np.full(len(uids), psize, "<f4"),
    }


def test_fractions_are_of_the_shape_y_x_and_y_counts_from_the_mrcs_first_row(tmp_path):
    path = write_cs(tmp_path / "picks.cs", **locations([(0.25, 0.1), (0.5, 0.9)]))
    (picks,) = read_picks([path], SIZES)
    assert picks.name == "mic.mrc" and picks.size_px == (200, 400)
    np.testing.assert_allclose(picks.centres_px, [(180, 100), (20, 200)], atol=1e-4)
    np.testing.assert_allclose(picks.scores, [0.5, 0.25])
    assert np.isnan(picks.diameters_px).all()
    (turned,) = read_picks([path], SIZES, frame="jpeg")
    np.testing.assert_allclose(turned.centres_px, [(20, 100), (180, 200)], atol=1e-4)


def test_particles_are_split_by_micrograph_in_their_order(tmp_path):
    table = locations([(0.5, 0.5), (0.25, 0.5), (0.75, 0.5)])
    table["location/micrograph_path"] = np.array([b"J3/other.mrc", b"J3/mic.mrc", b"J3/other.mrc"])
    found = centres([write_cs(tmp_path / "a.cs", **table)])
    assert found == {"mic.mrc": [[100, 100]], "other.mrc": [[100, 200], [100, 300]]}


@pytest.mark.parametrize("name", ["alignments2D", "alignments3D"])
def test_a_shift_in_px_of_its_own_pixel_size_is_subtracted(tmp_path, name):
    # Boxes binned by 2 (2 Å/px on a micrograph of 1 Å/px): 3 px of the box are 6 of the micrograph
    table = locations([(0.5, 0.5)]) | alignments([1], [(3, -1)], 2.0, name)
    (picks,) = read_picks([write_cs(tmp_path / "a.cs", **table)], SIZES)
    # x: 200 - 6; y in the MRC's frame: 100 + 2, so 98 from the top
    np.testing.assert_allclose(picks.centres_px, [(98, 194)], atol=1e-4)


def test_the_shift_of_a_refinement_counts_before_that_of_classes(tmp_path):
    table = locations([(0.5, 0.5)]) | alignments([1], [(9, 9)], 1.0)
    table |= alignments([1], [(4, 0)], 1.0, "alignments3D")
    assert centres([write_cs(tmp_path / "a.cs", **table)]) == {"mic.mrc": [[100, 196]]}


def test_without_its_own_pixel_size_a_shift_is_in_px_of_the_extracted_box(tmp_path):
    table = locations([(0.5, 0.5)]) | alignments([1], [(4, 0)], 1.0)
    del table["alignments2D/psize_A"]
    table["blob/psize_A"] = np.full(1, 4.0, "<f4")
    assert centres([write_cs(tmp_path / "a.cs", **table)]) == {"mic.mrc": [[100, 184]]}


def test_where_the_micrographs_pixel_size_is_unknown_shifts_stay_and_a_warning_says_so(tmp_path):
    table = locations([(0.5, 0.5)]) | alignments([1], [(4, 0)], 1.0)
    del table["location/micrograph_psize_A"]
    path = write_cs(tmp_path / "a.cs", **table)
    with pytest.warns(InputWarning, match=r"a\.cs: the shifts of alignments2D are not subtracted"):
        assert centres([path]) == {"mic.mrc": [[100, 200]]}
    exposures = write_exposures(tmp_path / "exposures.cs", psize=2.0)
    assert centres([path, exposures]) == {"mic.mrc": [[100, 198]]}


# Files that belong together


@pytest.fixture
def job(tmp_path):
    """A refinement: alignments in one file, locations in the passthrough, in another order."""
    main = alignments([3, 1], [(2, 0), (0, 0)], 1.0, "alignments3D")
    passed_on = locations([(0.25, 0.5), (0.5, 0.5), (0.75, 0.5)], uids=[1, 2, 3])
    return (
        write_cs(tmp_path / "J9_020_particles.cs", **main),
        write_cs(tmp_path / "J9_passthrough_particles.cs", **passed_on),
    )


def test_a_passthrough_file_is_joined_by_uid_whatever_the_order(job):
    for files in (job, job[::-1]):
        ((_, found),) = centres(files).items()
        assert sorted(found) == [[100, 100], [100, 298]]


def test_the_group_file_names_what_belongs_together(tmp_path, job):
    main, passed_on = job
    group = write_csg(
        tmp_path / "J9_particles.csg", location=passed_on.name, alignments3D=main.name,
        pick_stats=passed_on.name,
    )  # fmt: skip
    # One file of a group is enough, and all are not too many
    for given in ([group], [main], [passed_on], [group, main], [main, passed_on, group]):
        ((_, found),) = centres(given).items()
        assert sorted(found) == [[100, 100], [100, 298]]


def test_particles_without_locations_say_what_is_missing(job):
    with pytest.raises(UserError, match=r"J9_020_particles\.cs does not say where .*passthrough"):
        centres([job[0]])


def test_files_of_different_jobs_do_not_fit(tmp_path, job):
    other = write_cs(tmp_path / "other.cs", **locations([(0.5, 0.5)], uids=[77]))
    with pytest.raises(UserError, match=r"J9_020_particles\.cs does not say where"):
        centres([job[0], other])
    group = write_csg(tmp_path / "x.csg", location=other.name, alignments3D=job[0].name)
    with pytest.raises(UserError, match="no uid is in all of them"):
        centres([group])


def test_particles_that_another_file_lacks_are_counted(tmp_path, job):
    main = alignments([3, 9], [(2, 0), (0, 0)], 1.0)
    with pytest.warns(InputWarning, match="1 uids are in all of them, of 2"):
        centres([write_cs(tmp_path / "m.cs", **main), job[1]])


def test_a_uid_that_stands_twice_cannot_be_joined(tmp_path, job):
    main = alignments([3, 3], [(2, 0), (0, 0)], 1.0)
    with pytest.raises(UserError, match=r"m\.cs: a uid stands twice"):
        centres([write_cs(tmp_path / "m.cs", **main), job[1]])


def test_a_group_may_name_a_file_that_is_not_there(tmp_path):
    group = write_csg(tmp_path / "g.csg", location="gone.cs")
    with pytest.raises(UserError, match=r"gone\.cs is not there"):
        centres([group])
    group.write_text("results: 3\n")
    with pytest.raises(UserError, match=r"g\.csg is no group of cryoSPARC's"):
        centres([group])


# Names


def test_without_paths_exposures_name_the_micrographs_by_their_uid(tmp_path):
    table = locations([(0.5, 0.5)])
    table["location/micrograph_path"] = np.array([b""])
    path = write_cs(tmp_path / "a.cs", **table)
    exposures = write_exposures(tmp_path / "exposures.cs")
    (picks,) = read_picks([path, exposures], {"mic.mrc": (200, 400)})
    assert picks.name == "mic.mrc"
    (alone,) = read_picks([path], {})  # as cryoSPARC's own files are called
    assert alone.name == "000000000000000000077"


def test_cryosparcs_names_mean_the_micrographs_they_were_made_of(tmp_path):
    table = locations([(0.5, 0.5)])
    table["location/micrograph_path"] = np.array([f">J2/motioncorrected/{MICROGRAPH}".encode()])
    (picks,) = read_picks([write_cs(tmp_path / "a.cs", **table)], {"raw.tif": (200, 400)})
    assert picks.name == "raw.tif"


def test_micrographs_of_another_size_are_refused(tmp_path):
    path = write_cs(tmp_path / "a.cs", **locations([(0.5, 0.5)]))
    with pytest.raises(UserError, match=r"annotated as 400 x 200 px, but the image has 200 x 100"):
        read_picks([path], {"mic.mrc": (100, 200)})


# Damaged files


def test_exposures_are_no_particles(tmp_path):
    with pytest.raises(UserError, match=r"exposures\.cs is of exposures, not of particles"):
        centres([write_exposures(tmp_path / "exposures.cs")])


def test_nothing_that_a_file_holds_is_executed(tmp_path):
    table = np.zeros(1, dtype=[("uid", "<u8"), ("location/micrograph_path", "O")])
    with (tmp_path / "a.cs").open("wb") as file:
        np.save(file, table, allow_pickle=True)
    with pytest.raises(UserError, match=r"a\.cs cannot be read as cryoSPARC's \.cs"):
        centres([tmp_path / "a.cs"])


def test_files_that_are_cut_or_of_another_kind_are_refused(tmp_path):
    path = write_cs(tmp_path / "a.cs", **locations([(0.5, 0.5)] * 9))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"a\.cs cannot be read"):
        centres([path])
    path.write_bytes(b"\x95CSDAT and so on")
    with pytest.raises(UserError, match="stream format"):
        centres([path])
    with path.open("wb") as file:
        np.save(file, np.zeros(4))
    with pytest.raises(UserError, match=r"a\.cs is no \.cs"):
        centres([path])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("location/center_x_frac", np.array([np.nan], "<f4")),
        ("location/center_y_frac", np.array([b"0.5"])),
        ("location/micrograph_shape", np.zeros((1, 2), "<u4")),
        ("location/micrograph_shape", np.ones((1, 3), "<u4")),
        ("location/micrograph_uid", np.array([0.5])),
    ],
)
def test_fields_that_make_no_sense_are_named(tmp_path, name, value):
    table = locations([(0.5, 0.5)]) | {name: value}
    if name == "location/micrograph_uid":
        del table["location/micrograph_path"]
    with pytest.raises(UserError, match=r"a\.cs"):
        centres([write_cs(tmp_path / "a.cs", **table)])


def test_a_micrograph_of_two_shapes_is_refused(tmp_path):
    table = locations([(0.5, 0.5)] * 2)
    table["location/micrograph_shape"] = np.array([(200, 400), (400, 200)], "<u4")
    with pytest.raises(UserError, match=r"mic\.mrc has more than one location/micrograph_shape"):
        centres([write_cs(tmp_path / "a.cs", **table)])


def test_a_table_without_rows_has_no_micrographs(tmp_path):
    assert centres([write_cs(tmp_path / "a.cs", **locations([]))]) == {}


def test_a_refinement_of_many_classes_has_a_long_header(tmp_path):
    table = locations([(0.5, 0.5)])
    table |= {f"alignments_class_{i}/{'x' * 40}": np.zeros(1) for i in range(400)}
    assert centres([write_cs(tmp_path / "a.cs", **table)]) == {"mic.mrc": [[100, 200]]}


def test_only_what_is_needed_is_read(tmp_path):
    table = locations([(0.5, 0.5)])
    table |= dict.fromkeys(EXTRACTED, np.zeros(1))
    assert centres([write_cs(tmp_path / "a.cs", **table)]) == {"mic.mrc": [[100, 200]]}
