import pytest

from picking.errors import UserError
from picking.formats.star_tables import read_tables
from picking.relion_job import pipeline
from tests.fixtures.launching import executable

# As each version writes it into the folder of a job that it starts
PROCESS = {
    "3.1": ("# version 30001", "_rlnPipeLineProcessType", "99", "_rlnPipeLineNodeType", "1"),
    "4": (
        "# version 30001", "_rlnPipeLineProcessTypeLabel", "relion.external",
        "_rlnPipeLineNodeTypeLabel", "MicrographsData.star.relion",
    ),
    "5": (
        "# version 50001", "_rlnPipeLineProcessTypeLabel", "relion.external",
        "_rlnPipeLineNodeTypeLabel", "MicrographGroupMetadata.star.relion",
    ),
}  # fmt: skip


def pipeline_text(version, header=None):
    stated, process, kind, node, label = PROCESS[version]
    return (
        f"\n{header or stated}\n\ndata_pipeline_general\n\n_rlnPipeLineJobCounter 6\n\n"
        f"data_pipeline_processes\n\nloop_\n_rlnPipeLineProcessName #1\n{process} #2\n"
        f"External/job005/ {kind}\n\ndata_pipeline_nodes\n\nloop_\n_rlnPipeLineNodeName #1\n"
        f"{node} #2\nCtfFind/job003/micrographs_ctf.star {label}\n"
    )


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The folder of a job in a project, with no RELION on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    folder = tmp_path / "External/job005"
    folder.mkdir(parents=True)
    return folder.relative_to(tmp_path)


@pytest.mark.parametrize("name", ["External/job005/job_pipeline.star", "default_pipeline.star"])
@pytest.mark.parametrize("version", pipeline.VERSIONS)
def test_the_version_is_that_which_wrote_the_pipeline(version, name, job, tmp_path):
    (tmp_path / name).write_text(pipeline_text(version))
    assert pipeline.relion_version(job) == version


def test_nodes_of_5_say_5_under_the_header_of_4(job):
    (job / "job_pipeline.star").write_text(pipeline_text("5", header="# version 30001"))
    assert pipeline.relion_version(job) == "5"


def test_the_jobs_own_pipeline_goes_before_that_of_a_project_begun_with_another(job, tmp_path):
    (job / "job_pipeline.star").write_text(pipeline_text("5"))
    (tmp_path / "default_pipeline.star").write_text(pipeline_text("3.1"))
    assert pipeline.relion_version(job) == "5"


@pytest.mark.parametrize(
    ("number", "version"), [("3.1.3", "3.1"), ("4.0.1", "4"), ("5.0.0-commit-a", "5")]
)
def test_without_a_pipeline_the_program_says_its_version(number, version, job, tmp_path):
    executable(tmp_path / "bin/relion_refine", f"#!/bin/sh\necho 'RELION version: {number} '\n")
    assert pipeline.relion_version(job) == version


@pytest.mark.parametrize("program", [None, "RELION version: 3.0.8", "no such library"])
def test_an_unknown_version_is_an_error_that_names_the_flag(program, job, tmp_path):
    if program:
        executable(tmp_path / "bin/relion_refine", f"#!/bin/sh\necho '{program}'\n")
    with pytest.raises(UserError, match="--relion_version"):
        pipeline.relion_version(job)


@pytest.mark.parametrize(
    ("version", "label", "nodes"),
    [
        (
            "3.1", "rlnPipeLineNodeType",
            {"picks/coordinates/coords_suffix_autopick.star": "2", "logfile.pdf": "13"},
        ),
        (
            "4", "rlnPipeLineNodeTypeLabel",
            {
                "autopick.star": "MicrographsCoords.star.relion.autopick",
                "logfile.pdf": "LogFile.pdf.relion.autopick",
            },
        ),
        (
            "5", "rlnPipeLineNodeTypeLabel",
            {
                "autopick.star": "MicrographCoordsGroup.star.relion.autopick",
                "logfile.pdf": "LogFile.pdf.relion.autopick",
            },
        ),
    ],
)  # fmt: skip
def test_output_nodes_are_files_that_are_there_under_the_versions_own_names(
    version, label, nodes, job
):
    picks = job / "picks"
    (picks / "coordinates").mkdir(parents=True)
    for path in ("picks/coordinates/coords_suffix_autopick.star", "picks/autopick.star"):
        (job / path).write_text(path)
    (job / "logfile.pdf").touch()
    pipeline.write_nodes(job, version, picks)
    (table,) = read_tables(job / "RELION_OUTPUT_NODES.star")
    assert table.block == "output_nodes"
    cells = table.cells(["rlnPipeLineNodeName", label])
    found = dict(zip(*cells.values(), strict=True))
    assert found == {f"{job}/{path}": kind for path, kind in nodes.items()}
    assert all((job / path).exists() for path in nodes)
