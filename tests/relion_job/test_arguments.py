import pytest

from picking.errors import InputWarning, UserError
from picking.relion_job.arguments import CONFIG, as_ours, deciding, flags, parse_args

JOB = ("--o", "External/job005/", "--in_mics", "CtfFind/job003/micrographs_ctf.star")
TRAINED = (*JOB, "--checkpoint", "net.pt")
FEW = (*JOB, "--in_coords", "manualpick.star", "--diameter", "150A", "--expected_particles", "300")


def parse(*argv):
    return parse_args(argv, None)


@pytest.mark.parametrize(
    "label",
    ["expected_particles", "expected-particles", "Expected-Particles", "--expected_particles"],
)
def test_labels_are_taken_as_users_type_them(label):
    args = parse(
        *TRAINED, f"--{label}", "300", "--j", "4", "--pipeline_control", "External/job005/"
    )
    assert (args.expected_particles, args.j) == (300, 4)


def test_values_stay_as_they_are():
    assert as_ours(["--Check-Point=A-b_C", "A-b_C", "-1"]) == ["--check_point=A-b_C", "A-b_C", "-1"]


@pytest.mark.parametrize(
    ("value", "meant"), [("yes", True), ("True", True), ("1", True), ("No", False), ("0", False)]
)
def test_flags_have_a_value_in_relions_window_and_need_none_among_other_arguments(value, meant):
    assert parse(*TRAINED, "--invert", value).invert is meant
    assert parse(*TRAINED, "--strict", "--j", "1").strict is True


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (("--o", "External/job005/", "--checkpoint", "net.pt"), "Input micrographs"),
        (("--o", "External/job005/", "--in_movies", "movies.star"), "Input micrographs"),
        (JOB, "checkpoint"),
        ((*TRAINED, "--in_mics", "Micrographs/a.mrc"), "--in_mics .*micrographs_ctf.star"),
        ((*TRAINED, "--in_mics", "J2/exposures.cs"), "--in_mics .*micrographs_ctf.star"),
        ((*TRAINED, "--in_coords", "manualpick.star"), "not both"),
        ((*JOB, "--in_coords", "manualpick.star", "--expected_particles", "300"), "diameter"),
        ((*JOB, "--in_parts", "particles.star", "--diameter", "150A"), "expected_particles"),
        ((*TRAINED, "--treshold", "0.3"), "--treshold"),
        ((*TRAINED, "--thresh", "0.3"), "--thresh"),
        ((*TRAINED, "--diameter", "--j", "1"), "--diameter"),
        ((*TRAINED, "--expected_particles", "nan"), "--expected_particles"),
        ((*TRAINED, "--invert", "perhaps"), "--invert"),
        ((*FEW, "--invert", "yes"), "--invert"),
        ((*TRAINED, "--j", "0"), "--j"),
        ((*TRAINED, "--relion_version", "2"), "--relion_version"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(argv, names):
    with pytest.raises(UserError, match=names):
        parse(*argv)


def test_coordinates_and_particles_may_both_be_learned_from():
    args = parse(*FEW, "--in_parts", "particles.star")
    assert [path.name for path in args.labels] == ["manualpick.star", "particles.star"]
    assert args.config == CONFIG


def test_what_a_continued_job_must_not_change():
    began = deciding(parse(*FEW))
    assert deciding(parse(*FEW, "--threshold", "0.3", "--j", "8")) == began
    for changed in (("--diameter", "160A"), ("--expected_particles", "200"), ("--frame", "jpeg"),
                    ("--junk", "masks")):  # fmt: skip
        assert deciding(parse(*FEW, *changed)) != began
    trained = deciding(parse(*TRAINED))
    assert deciding(parse(*TRAINED, "--expected_particles", "200")) == trained
    assert deciding(parse(*JOB, "--checkpoint", "other.pt")) != trained


def test_flags_of_our_scripts_are_those_that_were_given():
    args = parse(*TRAINED, "--pixel-size", "1.5", "--invert", "yes")
    assert flags(args, "diameter", "pixel_size", "invert", "strict") == [
        "--pixel-size", "1.5", "--invert",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["in_movies", "in_3dref", "in_mask"])
def test_inputs_that_are_of_no_use_are_said(name):
    with pytest.warns(InputWarning, match=name):
        parse(*TRAINED, f"--{name}", "Import/job001/some.star")
