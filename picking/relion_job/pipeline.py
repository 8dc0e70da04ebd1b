"""What RELION's pipeline reads of a job: which RELION it is, and the job's output nodes.

RELION 3.1 knows nodes by a number and finds coordinates by the name coords_suffix_autopick.star; 4
and 5 know them by a label, and read a list of files of coordinates.
"""

import re
import shutil
import subprocess
from pathlib import Path

from picking.errors import UserError
from picking.files import read_text, write_atomically
from picking.formats.relion.writing import FOLDER, LIST, TAIL
from picking.formats.star_tables import read_tables

NODES = "RELION_OUTPUT_NODES.star"
VERSIONS = ("3.1", "4", "5")
PIPELINE = "default_pipeline.star"  # in the project's folder, RELION's working folder
OF_JOB = "job_pipeline.star"  # RELION writes it into the job's folder before it calls
# Kinds of nodes -> how each version calls them
COORDINATES = {
    "3.1": "2",
    "4": "MicrographsCoords.star.relion.autopick",
    "5": "MicrographCoordsGroup.star.relion.autopick",
}
LOGFILE = {
    "3.1": "13",
    "4": "LogFile.pdf.relion.autopick",
    "5": "LogFile.pdf.relion.autopick",
}
NEW_IN_5 = re.compile(r"^# version 5\d{4}|Group(?:Metadata)?\.star\b", re.MULTILINE)


def relion_version(job: Path, program: str = "relion_refine") -> str:
    """Return which of `VERSIONS` runs a job: by the pipeline it wrote, else by its program.

    Raises `UserError` where neither tells.
    """
    for path in (job / OF_JOB, Path(PIPELINE)):
        if path.is_file():
            labels = {label for table in read_tables(path) for label in table.labels}
            if "rlnPipeLineProcessTypeLabel" in labels:
                return "5" if NEW_IN_5.search(read_text(path)) else "4"
            if "rlnPipeLineProcessType" in labels:
                return "3.1"
    found = shutil.which(program)
    if found:
        said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
        number = re.search(r"RELION version: *(\d+)\.(\d+)", said)
        if number and (int(number[1]) > 3 or number[2] == "1"):
            return {"3": "3.1", "4": "4"}.get(number[1], "5")
    raise UserError(
        f"no {OF_JOB} in {job}, no {PIPELINE} in the working folder and no {program} tells the "
        f"version of RELION: give --relion_version, one of {', '.join(VERSIONS)}"
    )


def write_nodes(job: Path, version: str, picks: Path) -> None:
    """Write RELION_OUTPUT_NODES.star of a job with a logfile.pdf and a folder of picks.

    RELION 3.1 wants the file that stands for a folder of coordinates, where that is; later ones
    take the list of files, of which there is a copy in the job's folder.
    """
    if version == "3.1":
        coordinates = picks / FOLDER / f"coords_suffix{TAIL}"
        label = "_rlnPipeLineNodeType"
    else:
        coordinates = job / LIST
        write_atomically(coordinates, (picks / LIST).read_bytes())
        label = "_rlnPipeLineNodeTypeLabel"
    nodes = [(coordinates, COORDINATES[version]), (job / "logfile.pdf", LOGFILE[version])]
    rows = "".join(f"{path.as_posix()} {kind}\n" for path, kind in nodes)
    text = f"data_output_nodes\n\nloop_\n_rlnPipeLineNodeName #1\n{label} #2\n{rows}"
    write_atomically(job / NODES, text)
