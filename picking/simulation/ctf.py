"""The microscope: wavelength, contrast transfer function, its zeros, and power spectra to see them.

Spatial frequencies s are in 1/Å; underfocus is positive.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft


@dataclass(frozen=True)
class Optics:
    """How a micrograph was taken; the defaults are a 300 kV microscope with a direct detector."""

    pixel_size_angstrom: float = 2.0
    defocus_angstrom: float = 15000.0  # underfocus
    voltage_kv: float = 300.0
    cs_mm: float = 2.7  # spherical aberration
    amplitude_contrast: float = 0.1  # A, a fraction
    b_factor_angstrom2: float = 60.0  # B of the envelope
    dose_per_angstrom2: float = 25.0  # electrons

    @property
    def wavelength_angstrom(self) -> float:
        """The electrons' relativistic wavelength in Å."""
        volts = self.voltage_kv * 1e3
        return 12.2643 / math.sqrt(volts * (1 + 0.978466e-6 * volts))

    def ctf(self, shape: tuple[int, int]) -> np.ndarray:
        """Return the contrast transfer function for `rfft2` of an image (h, w), as (h, w // 2 + 1).

        float32, row 0 and column 0 at zero frequency. Dense matter comes out dark:
        -(sqrt(1 - A^2) sin g + A cos g) exp(-B s^2 / 4) with
        g = pi lambda dz s^2 - pi/2 Cs lambda^3 s^4 (Wade 1992; Rohou and Grigorieff 2015).
        """
        wavelength, amplitude = self.wavelength_angstrom, self.amplitude_contrast
        cs_angstrom = self.cs_mm * 1e7
        s_y = fft.fftfreq(shape[0], self.pixel_size_angstrom)[:, None]
        s_x = fft.rfftfreq(shape[1], self.pixel_size_angstrom)[None, :]
        s2 = s_y**2 + s_x**2
        spherical = cs_angstrom * wavelength**2 * s2 / 2
        gamma = np.pi * wavelength * (self.defocus_angstrom - spherical) * s2
        phase = math.sqrt(1 - amplitude**2) * np.sin(gamma)
        envelope = np.exp(-self.b_factor_angstrom2 * s2 / 4)
        return (-(phase + amplitude * np.cos(gamma)) * envelope).astype(np.float32)


def ctf_zeros(optics: Optics, n: int) -> np.ndarray:
    """Return the first ``n`` frequencies at which the CTF is zero, in 1/Å, float64 (n,).

    There g + asin(A) is a multiple of pi, with g as in `Optics.ctf`: a quadratic equation in s^2.
    NaN beyond the frequency where spherical aberration turns the phase back.
    """
    cs_wavelength = optics.cs_mm * 1e7 * optics.wavelength_angstrom
    turns = np.arange(1, n + 1) - math.asin(optics.amplitude_contrast) / math.pi
    with np.errstate(invalid="ignore"):
        root = np.sqrt(optics.defocus_angstrom**2 - 2 * cs_wavelength * turns)
    # 2 turns / (dz + root) is (dz - root) / (Cs lambda) without the cancellation, for Cs = 0 too.
    s2 = 2 * turns / (optics.defocus_angstrom + root) / optics.wavelength_angstrom
    return np.sqrt(s2)


def radial_power(image: np.ndarray, pixel_size_angstrom: float) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies in 1/Å and the power at them, averaged over rings: two (n,) arrays.

    image: (h, w). A Hann window keeps the border from leaking into all frequencies. Rings are one
    step of the shorter side's transform wide and end at the Nyquist frequency.
    """
    window = np.outer(np.hanning(image.shape[0]), np.hanning(image.shape[1]))
    power = np.abs(fft.rfft2((image - image.mean()) * window)) ** 2
    s_y, s_x = fft.fftfreq(image.shape[0]), fft.rfftfreq(image.shape[1])
    ring = np.rint(np.hypot(s_y[:, None], s_x[None, :]) * min(image.shape)).astype(int).ravel()
    n_rings = min(image.shape) // 2
    mean = np.bincount(ring, power.ravel()) / np.maximum(np.bincount(ring), 1)
    return np.arange(n_rings) / (min(image.shape) * pixel_size_angstrom), mean[:n_rings]
