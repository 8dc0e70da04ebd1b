"""The image of a micrograph: projected particles, the CTF, ice, carbon and shot noise.

Images are (h, w) in the JPEG's frame: row 0 at the top, y down. Lengths in Å are turned into px at
the top of `simulate_micrograph`, once. An image formed by weak scatterers is, as a fraction of the
mean counts, the projected density convolved with the CTF, and each pixel's count is Poisson.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from picking.simulation.ctf import Optics
from picking.simulation.junk import carbon_film, ice_crystals, scatter_junk
from picking.simulation.proteins import (
    GAUSSIAN_SIGMA_ANGSTROM,
    Protein,
    protein_gaussians,
    random_angles,
    rotation_matrices,
)

# Noise: the ice scatters like a thin film of random density, the rest is counting electrons.
SOLVENT_TO_SHOT_VARIANCE = 0.4
SOLVENT_GRAIN_ANGSTROM = 12.0  # dissolved matter, coarser than the ice
SOLVENT_GRAIN = 2.5
CARBON_TEXTURE = 0.4  # the carbon film adds its own scattering to the solvent's (rms, relative)
# Fractions of the mean counts.
ICE_RMS, ICE_GRADIENT = 0.006, 0.02
CARBON_ABSORPTION, CARBON_PHASE = 0.03, 0.04
CRYSTAL_ABSORPTION, CRYSTAL_PHASE = 0.06, 0.2
# Junk: a film beside the carbon's, crystalline ice, particles piled up on a square of the diameter
JUNK_FILM_PHASE, ICE_GRAIN_PHASE, ICE_GRAIN_ANGSTROM = 0.06, 0.10, 25.0
PILED_PARTICLES = 3.0
# Layout: thick ice holds more particles, carbon few; some particles touch, debris lies between.
ICE_SCALE_ANGSTROM = 350.0
CLUSTERING = 0.9
CARBON_OCCUPANCY = 0.1
TOUCHING_FRACTION = 0.3
CLOSEST_DIAMETERS = 0.9
DEBRIS_PER_PARTICLE = 1.0
HOLE_RADIUS_ANGSTROM = 6000.0


@dataclass(frozen=True)
class Simulated:
    """A raw micrograph with its exact truth.

    raw: float32 (h, w), electrons per pixel. centres_px: float64 (n, 2), (y, x), every particle
    whose centre is in the image. angles_deg: (n, 3), RELION's rot, tilt, psi in the MRC's frame
    (y up). signal: float32 (h, w), the particles alone, as a fraction of the mean counts. junk:
    bool (h, w), where carbon, ice or aggregates leave no particle to pick.
    """

    raw: np.ndarray
    centres_px: np.ndarray
    angles_deg: np.ndarray
    diameter_px: float
    signal: np.ndarray
    junk: np.ndarray


def splat(shape: tuple[int, int], points_px: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return an image, float32 (h, w), each weight spread over the four pixels about its point.

    points_px: (n, 2), (y, x). What falls outside the image is lost. Blurred afterwards by a
    Gaussian of more than a pixel, this is the projection of a sum of Gaussians.
    """
    low = np.floor(points_px).astype(np.int64)
    part = points_px - low
    image = np.zeros(shape[0] * shape[1])
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        y, x = low[:, 0] + dy, low[:, 1] + dx
        weight = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1]) * weights
        inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
        image += np.bincount(y[inside] * shape[1] + x[inside], weight[inside], len(image))
    return image.reshape(shape).astype(np.float32)


def smooth_field(shape: tuple[int, int], scale_px: float, rng: np.random.Generator) -> np.ndarray:
    """Return a random field, float32 (h, w), of mean 0, deviation 1 and structures of a scale."""
    spectrum = fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    field = fft.irfft2(spectrum * _gaussian_filter(shape, scale_px), shape)
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _gaussian_filter(shape: tuple[int, int], sigma_px: float) -> np.ndarray:
    """Return the transform of a Gaussian of unit sum, float32 (h, w // 2 + 1)."""
    y = np.exp(-2 * (np.pi * sigma_px * fft.fftfreq(shape[0])) ** 2)
    x = np.exp(-2 * (np.pi * sigma_px * fft.rfftfreq(shape[1])) ** 2)
    return np.outer(y, x).astype(np.float32)


def simulate_micrograph(
    protein: Protein,
    optics: Optics,
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    snr: float = 0.06,
    density: float = 1.0,
    carbon: bool = False,
    n_crystals: int = 0,
    junk: Sequence[str] = (),
    junk_rng: np.random.Generator | None = None,
) -> Simulated:
    """Simulate one micrograph.

    Args:
        protein: what the particles are.
        optics: how it is taken.
        shape: (h, w) in px.
        rng: all randomness comes from it.
        snr: variance of the particles' signal inside their disks over the variance of the noise,
            per raw pixel, for a protein of contrast 1.
        density: number of particles over the protein's usual one.
        carbon: the edge of the support film crosses the image.
        n_crystals: pieces of ice.
        junk: kinds of `picking.simulation.junk`, one of each.
        junk_rng: their randomness comes from it.
    """
    pixel = optics.pixel_size_angstrom
    diameter_px = protein.diameter_angstrom / pixel
    # A frame of one diameter, cropped at the end: particles hang over the border, and nothing
    # comes back from the opposite side through the Fourier transforms.
    pad = math.ceil(diameter_px)
    canvas = tuple(fft.next_fast_len(n + 2 * pad, real=True) for n in shape)
    ice = smooth_field(canvas, ICE_SCALE_ANGSTROM / pixel, rng)
    film = carbon_film(canvas, HOLE_RADIUS_ANGSTROM / pixel, rng) if carbon else np.zeros(canvas)
    crystals = ice_crystals(canvas, n_crystals, pixel, rng)
    appeal = np.exp(CLUSTERING * ice) * (1 - (1 - CARBON_OCCUPANCY) * film)
    appeal *= np.where(crystals > 0.1, 1e-9, 1)
    spoilt = scatter_junk(junk, canvas, diameter_px, pixel, junk_rng) if junk_rng else None
    if spoilt is not None:
        appeal *= np.where(spoilt.where, 1e-9, 1)
    area_um2 = canvas[0] * canvas[1] * (pixel * 1e-4) ** 2
    wanted = rng.poisson(density * protein.particles_per_um2 * area_um2)
    centres = place_particles(wanted, diameter_px, appeal, rng)
    angles = random_angles(len(centres), rng)

    counts = optics.dose_per_angstrom2 * pixel**2
    ctf = optics.ctf(canvas)
    blurred_ctf = ctf * _gaussian_filter(canvas, GAUSSIAN_SIGMA_ANGSTROM / pixel)
    gaussians = protein_gaussians(protein) / pixel
    particles = project(canvas, gaussians, centres, angles, rng)
    signal = fft.irfft2(fft.rfft2(particles) * blurred_ctf, canvas)
    noise_variance = (1 + SOLVENT_TO_SHOT_VARIANCE) / counts  # as a fraction of the mean counts
    variance = disk_variance(signal, centres, diameter_px / 2)
    scale = math.sqrt(snr * protein.contrast * noise_variance / variance) if variance else 0.0
    signal *= scale

    debris = scatter_debris(canvas, gaussians, rng.poisson(DEBRIS_PER_PARTICLE * wanted), rng)
    texture, phase = film, CARBON_PHASE * film + CRYSTAL_PHASE * crystals
    absorbed = CARBON_ABSORPTION * film + CRYSTAL_ABSORPTION * crystals
    where = (film > 0.5) | (crystals > 0.1)
    if spoilt is not None and junk_rng is not None:
        texture, absorbed = np.maximum(film, spoilt.film), absorbed + spoilt.absorbed
        grains = smooth_field(canvas, ICE_GRAIN_ANGSTROM / pixel, junk_rng)
        phase = phase + JUNK_FILM_PHASE * spoilt.film + ICE_GRAIN_PHASE * spoilt.ice * grains
        debris = debris + pile_up(spoilt.piles, gaussians, diameter_px, junk_rng)
        where |= spoilt.where
    background = fft.rfft2(debris) * (scale * blurred_ctf)
    background += fft.rfft2(phase) * ctf
    background += solvent_spectrum(texture, ctf, pixel, SOLVENT_TO_SHOT_VARIANCE / counts, rng)
    absorbed += ICE_RMS * ice + ice_gradient(canvas, rng)
    expected = counts * (1 - absorbed) * (1 + signal + fft.irfft2(background, canvas))

    window = tuple(slice(pad, pad + n) for n in shape)
    centres = centres - pad
    inside = ((centres >= 0) & (centres <= np.array(shape) - 1)).all(axis=1)
    return Simulated(
        raw=rng.poisson(np.maximum(expected[window], 0)).astype(np.float32),
        centres_px=centres[inside],
        angles_deg=angles[inside],
        diameter_px=diameter_px,
        signal=signal[window].astype(np.float32),
        junk=where[window],
    )


def solvent_spectrum(
    film: np.ndarray,
    ctf: np.ndarray,
    pixel_size_angstrom: float,
    variance: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the transform of the solvent's image, complex (h, w // 2 + 1).

    White noise, with more at low frequency for dissolved matter, seen through the CTF and so
    full of Thon rings. film: (h, w), where carbon adds to it. variance: of the image off carbon.
    """
    grain = 1 + SOLVENT_GRAIN * _gaussian_filter(
        film.shape, SOLVENT_GRAIN_ANGSTROM / pixel_size_angstrom
    )
    grain *= ctf
    scatterers = rng.standard_normal(film.shape, dtype=np.float32) * (1 + CARBON_TEXTURE * film)
    return fft.rfft2(scatterers) * (grain * math.sqrt(variance / np.mean(grain**2)))


def ice_gradient(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a plane (h, w) of random direction and slope, 0 in the middle: ice gets thicker."""
    slope = rng.normal(size=2)
    slope *= ICE_GRADIENT * rng.uniform() / np.linalg.norm(slope)
    y, x = (s * np.linspace(-1, 1, n) for s, n in zip(slope, shape, strict=True))
    return np.add.outer(y, x)


def place_particles(
    wanted: int, diameter_px: float, appeal: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return centres (n, 2), (y, x), n at most ``wanted``, where ``appeal`` (h, w) draws them.

    A fraction of them is put beside an earlier one, so that particles touch; no two centres are
    closer than `CLOSEST_DIAMETERS`. Crowded areas fill up; then fewer are returned than wanted.
    """
    cumulative = np.cumsum(appeal, dtype=np.float64)
    cumulative /= cumulative[-1]
    limit = np.array(appeal.shape) - 1
    typical = appeal.mean()
    centres = np.empty((0, 2))
    for _ in range(4 * wanted):
        if len(centres) == wanted:
            break
        if len(centres) and rng.uniform() < TOUCHING_FRACTION:
            angle = rng.uniform(0, 2 * math.pi)
            step = diameter_px * rng.uniform(CLOSEST_DIAMETERS, 1.25)
            neighbour = centres[rng.integers(len(centres))]
            candidate = neighbour + step * np.array([math.sin(angle), math.cos(angle)])
            if (candidate < 0).any() or (candidate > limit).any():
                continue
            if appeal[tuple(candidate.astype(int))] < rng.uniform() * typical:
                continue
        else:
            flat = int(np.searchsorted(cumulative, rng.uniform()))
            row, column = divmod(min(flat, appeal.size - 1), appeal.shape[1])
            candidate = np.array([row, column]) + rng.uniform(-0.5, 0.5, 2)
        distances = np.linalg.norm(centres - candidate, axis=1)
        if len(centres) == 0 or distances.min() >= CLOSEST_DIAMETERS * diameter_px:
            centres = np.vstack([centres, candidate])
    return centres


def project(
    shape: tuple[int, int],
    gaussians_px: np.ndarray,
    centres_px: np.ndarray,
    angles_deg: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the particles' projections as points, float32 (h, w); occupancy varies by a tenth."""
    turned = np.einsum("nij,gj->ngi", rotation_matrices(angles_deg)[:, :2], gaussians_px)
    offsets = turned[:, :, ::-1] * (-1, 1)  # (x, y up) -> (y down, x)
    points = (centres_px[:, None] + offsets).reshape(-1, 2)
    weights = np.repeat(rng.normal(1, 0.1, len(centres_px)), len(gaussians_px))
    return splat(shape, points, weights)


def scatter_debris(
    shape: tuple[int, int], gaussians_px: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Return n broken-off pieces, a tenth to a third of a particle each, anywhere: (h, w)."""
    points = [np.empty((0, 2))]
    for centre, angles in zip(rng.uniform(0, shape, (n, 2)), random_angles(n, rng), strict=True):
        from_one = np.linalg.norm(gaussians_px - rng.choice(gaussians_px), axis=1)
        piece = gaussians_px[from_one <= np.quantile(from_one, rng.uniform(0.1, 0.35))]
        piece = (piece - piece.mean(axis=0)) @ rotation_matrices(angles[None])[0].T
        points.append(centre + piece[:, :2])
    points_px = np.concatenate(points)
    return splat(shape, points_px, np.ones(len(points_px)))


def pile_up(
    piles: np.ndarray, gaussians_px: np.ndarray, diameter_px: float, rng: np.random.Generator
) -> np.ndarray:
    """Return particles that lie on each other where there are piles, as `project` does: (h, w).

    piles: (h, w), 0 to 1, how dense they lie.
    """
    total = float(piles.sum())
    n = rng.poisson(PILED_PARTICLES * total / diameter_px**2)
    if not n:
        return np.zeros(piles.shape, np.float32)
    ends = np.cumsum(piles, dtype=np.float64)
    flat = np.minimum(np.searchsorted(ends, rng.uniform(0, ends[-1], n)), piles.size - 1)
    centres = np.stack(np.unravel_index(flat, piles.shape), axis=1).astype(float)
    return project(piles.shape, gaussians_px, centres, random_angles(n, rng), rng)


def disk_variance(signal: np.ndarray, centres_px: np.ndarray, radius_px: float) -> float:
    """Return the variance of ``signal`` inside the disks, averaged over them (0 without any)."""
    variances = [0.0] if len(centres_px) == 0 else []
    for y, x in centres_px:
        top, left = max(0, round(y - radius_px)), max(0, round(x - radius_px))
        box = signal[top : round(y + radius_px) + 1, left : round(x + radius_px) + 1]
        rows = np.arange(top, top + box.shape[0])[:, None] - y
        columns = np.arange(left, left + box.shape[1])[None, :] - x
        variances.append(float(box[rows**2 + columns**2 <= radius_px**2].var()))
    return float(np.mean(variances))
