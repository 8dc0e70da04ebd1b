"""From the command line to a session at work: micrographs, sizes, labels, what speaks against."""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from picking.errors import UserError, warn
from picking.formats.names import few, require_writable
from picking.inputs.diameters import asked_diameters, find_pixel_sizes, require_diameter_fits
from picking.inputs.micrograph_lists import given_micrographs
from picking.inputs.paths import Paths
from picking.labelling.folder.labels import READ_ONLY, LabelsFolder, held
from picking.labelling.folder.session import (
    Session,
    asked_session,
    read_session,
    require_same_micrographs,
    write_session,
)
from picking.labelling.rounds.export import EXPORT, export, made_of
from picking.labelling.rounds.plan import round_folder
from picking.labelling.rounds.progress import idle_round
from picking.labelling.rounds.proposals import Proposals, last_with_proposals
from picking.labelling.rounds.runner import LOG, run_round
from picking.labelling.viewing.pictures import Pictures
from picking.labelling.web.work import Work
from picking.micrographs.left_out import readable_sizes

CACHE, A_ROUND = "cache", "a page"


@contextlib.contextmanager
def opened(args: argparse.Namespace, is_round: bool = False) -> Iterator[Work]:
    """Yield the session that the command line asks for, and hold its folder meanwhile.

    args: micrographs, diameter, pixel_size, output, config and allow_partial of label_particles.py.
    is_round: only to read the labels, whoever changes them. Raises `UserError` for what cannot be
    meant.
    """
    folder: Path = args.output
    session = asked_session(folder, args.micrographs, args.diameter, args.pixel_size)
    paths, listed = given_micrographs(session.micrographs, args.allow_partial)
    require_writable(paths, ["star"], one_file=True)
    sizes_px, problems = readable_sizes(paths, strict=False)
    readable = {name: paths[name] for name in sizes_px}
    pixel_sizes = find_pixel_sizes(
        session.pixel_size, readable, listed.pixel_sizes if listed else {}
    )
    usual_px, own_px = asked_diameters(session.diameter, pixel_sizes, readable)
    assert usual_px is not None  # a session has a diameter
    require_diameter_fits(usual_px, sizes_px, own_px)
    diameters_px = {name: own_px.get(name, usual_px) for name in readable}
    # A round reads the labels while the page changes them
    with contextlib.nullcontext(A_ROUND) if is_round else held(folder) as used_by:
        labels = LabelsFolder(
            folder, sizes_px, diameters_px, listed.names if listed else {}, used_by
        )
        gone = require_same_micrographs(
            folder, labels.history.sizes_px, sizes_px, _former(folder, session), paths
        )
        if used_by is not None and not is_round:
            warn(READ_ONLY.format(used_by))
        elif not is_round:
            write_session(folder, session)
        if gone:
            warn(
                f"{len(gone):,} labelled micrographs are not there any more ({few(gone)}): their "
                "labels are kept"
            )
        labels.begin()
        problems |= {name: f"{name} is not there any more: its labels are kept" for name in gone}
        pictures = Pictures(paths, None if used_by is not None else folder / CACHE)
        yield Work(
            session, [*paths, *gone], problems, labels, pictures, diameters_px, readable, listed,
            args.config,
        )  # fmt: skip


def serve_page(args: argparse.Namespace) -> None:
    """Open the folder of labels and serve its page until Ctrl-C."""
    from picking.labelling.web.serve import listening_socket, serve

    with listening_socket(args.host, args.port) as listening, opened(args) as work:
        n_picks = sum(work.row(name)["picks"] for name in work.names)
        print(f"{args.output}: {len(work.names):,} micrographs, {n_picks:,} picks")
        serve(work, args.host, listening)


def new_round(args: argparse.Namespace) -> None:
    """Plan the next round, which learns if --train says so, and run it."""
    # A new folder is made, as the page makes it
    with opened(args, is_round=read_session(args.output) is not None) as work:
        idle_round(args.output)
        k = work.plan_round(args.expected_particles, learns=args.train)
    round_path = round_folder(args.output, k)
    print(f"Round {k}; the log is {round_path / LOG}")
    run_round(round_path)


def go_on(args: argparse.Namespace) -> None:
    """Run what is left of a round that was planned."""
    run_round(round_folder(args.output, args.go_on))


def export_picks(args: argparse.Namespace) -> None:
    """Write what was marked and what the last round proposes."""
    if read_session(args.output) is None:  # what is written there would make it one of others
        raise UserError(
            f"{args.output} is no folder of labels yet: label on its page, or begin with --propose"
        )
    with opened(args, is_round=True) as work:
        last, proposals = last_with_proposals(args.output), None
        if last is not None:
            proposals = Proposals(last, work.labels.sizes_px)
            proposals.update()
        folder = args.output / EXPORT
        n = export(
            folder, work.labels.history, work.labels.sizes_px, work.diameters_px, proposals,
            args.export, work.listed,
        )  # fmt: skip
    print(f"{n:,} picks are in {folder}: {made_of(proposals, len(work.labels.sizes_px))}")


def _former(folder: Path, session: Session) -> Paths:
    """Return the micrographs that a folder was of until now, as far as they are there."""
    before = read_session(folder)
    if before is None or before.micrographs == session.micrographs:
        return {}
    with contextlib.suppress(UserError):
        return given_micrographs(before.micrographs, allow_partial=True)[0]
    return {}
