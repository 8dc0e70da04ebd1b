"""Learning from a few picks: places near them are the labelled, places anywhere the unlabeled.

A place is positive when it lies within `POSITIVE_RADIUS` diameters of a particle's centre. Windows
are cut about each pick, and at random from the whole of every micrograph; training crops them at
random (`picking.training.augment.window_views`), so that a pick lies anywhere in its crop. A U-Net
scores every place of a crop. Those near a pick are the labelled, in any crop; the nnPU risk
compares them with the other places of the random windows. With N particles a micrograph, n of them
picked, the fractions of places near a particle are known,

    of all places            N a,  a = π (POSITIVE_RADIUS · diameter)² / area
    of those near no pick    π_U = (N - n) a / (1 - n a).

Disks that overlap would cover less than N a; so far apart as particles lie, they do not: measured,
0.99 to 1.00 of N a on four proteins, crowded TRPV1 among them (benchmarks/disks.py).

No place is called negative, since nobody knows where the other particles are, unless somebody says
so. Places near a click on what is no particle are known negatives. So is all of a micrograph that
is picked completely, but for the disk about each pick and a ring around it, as far as a pick may be
off. What was painted as junk is ignored, as the ring is, and no window is centred there. Junk that
nobody painted is learned like all else: networks that never saw any took it for particles. Then

    π_U = (fraction near a particle - fraction near a pick) / fraction of which nothing is known,

see `place_priors` in priors.py.
"""
