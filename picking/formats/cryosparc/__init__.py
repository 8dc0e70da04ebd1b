"""cryoSPARC's .cs of particles and of exposures, and the .csg that names the files of a group.

A .cs is a NumPy structured array with a row for each particle or micrograph. Places are fractions
of the micrograph's shape, which is (y, x); y counts from the MRC's first row, which cryoSPARC shows
at the bottom. What a job passes on from others is in a passthrough file, joined by ``uid``.
"""
