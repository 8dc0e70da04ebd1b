r"""Pick particles: a trained network and micrographs -> coordinates for RELION and cryoSPARC.

    # once, on validation micrographs: the threshold with the highest F1, kept beside the checkpoint
    python pick_particles.py --checkpoint experiments/run/checkpoints/best_model.pt \
        --micrographs 'val/*.jpg' --diameter 108px --choose-threshold instances_val.json
    # pick; the same command with --resume goes on, also when more micrographs have come, and with
    # another --threshold, --formats, --overlay or --evaluate it makes those without inference
    python pick_particles.py --checkpoint experiments/run/checkpoints/best_model.pt \
        --micrographs 'raw/*.mrc' --diameter 150A --pixel-size 1.77 --output picks --overlay
    # how good the picks are: these, or the files of any picker
    python pick_particles.py --checkpoint experiments/run/checkpoints/best_model.pt \
        --micrographs 'test/*.jpg' --diameter 108px --output picks_test \
        --evaluate instances_test.json
    python pick_particles.py --evaluate instances_test.json --picks 'other/*.box'

The output folder gets <format>/<micrograph>.<suffix> or, with --one-file, picks.<suffix>, and
particles.cs with particles.csg for cryoSPARC; counts against the threshold in thresholds.csv;
summary.csv; and with --evaluate evaluation.json and pr_curve.png. CSV and COCO are in the JPEG's
frame, all others in the MRC's.
"""

from picking.detection.arguments import parse_args
from picking.detection.evaluate import evaluate_files
from picking.errors import run_script
from picking.formats.names import require_writable
from picking.formats.relion.writing import require_listable
from picking.inputs.diameters import asked_diameters, find_pixel_sizes, require_diameter_fits
from picking.inputs.junk_masks import find_junk_masks
from picking.inputs.micrograph_lists import given_micrographs
from picking.micrographs.left_out import readable_sizes, tell


def main() -> None:
    """Pick, or evaluate the picks of others, or choose the threshold."""
    args = parse_args(__doc__)
    given, args.listed = given_micrographs(args.micrographs or [], args.allow_partial)
    if args.output and not args.picks:
        require_writable(given, args.formats, args.one_file)
        if args.listed is not None and not args.listed.exposures:
            require_listable(args.output, args.listed.names)
    sizes, left_out = readable_sizes(given, args.strict)  # without stacks and movies
    paths = {name: given[name] for name in sizes}
    listed = args.listed.pixel_sizes if args.listed else {}
    args.pixel_sizes = find_pixel_sizes(args.pixel_size, paths, listed)
    # None without; and of the micrographs with px of another size
    args.asked_px, args.own_px = asked_diameters(args.diameter, args.pixel_sizes, paths)
    if args.asked_px is not None:
        require_diameter_fits(args.asked_px, sizes, args.own_px)
    if args.picks:
        evaluate_files(args, paths, sizes)
        tell(left_out, len(given))
        return
    args.masks = {}  # of painted junk, by name
    if args.junk:
        args.masks = find_junk_masks(args.junk, sizes, left_out, args.allow_partial)
    # Here torch is imported, which takes seconds: what is wrong with the above is said first
    from picking.detection.run import pick_micrographs
    from picking.detection.threshold_search import keep_best_threshold

    if args.choose_threshold or (args.expected_particles and not args.output):
        keep_best_threshold(args, paths, sizes, left_out)
    else:
        pick_micrographs(args, paths, sizes, left_out)
    tell(left_out, len(given))


if __name__ == "__main__":
    run_script(main)
