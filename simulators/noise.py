"""Noise of an sCMOS camera behind a scintillator, drawn from counters.

A frame is ``adu = round(gain Poisson(s) + offset(t) + fixed pattern + read noise)``, with ``s`` the photons a pixel
detects (dfxm-geo, "detector noise model", fitted to ID03 darks and a photon-transfer sweep): ``offset(t)`` is
102.5 + 7.5 t ADU, the temporal variance 6.3 + 11 t + 2.14 s_adu ADU^2, the fixed pattern 1.8 ADU with 1.5 % warm pixels
of an exponential tail of 10 ADU; first and last rows are raised; values are clipped at 65535.

Each pixel of each frame has its own 64-bit word: the output of SplitMix64 (Steele, Lea, Flood 2014, OOPSLA) at the
counter ``frame number * 2^26 + pixel``. The map from counter to word is one to one, so no word is used twice by a
camera, and a frame is the same whatever threads made it and in whatever order. The low 12 bits choose the read noise
among 4096 quantiles of the normal distribution, the high bits and one more scramble of the word decide the photon
number.

Photon numbers: below `EXACT_BELOW`, a Poisson number of the mean is the sum of one of the next lower multiple of 1/8
and one of the rest, each by inversion of its distribution function (32 random bits each), the first with a guide table
(Devroye 1986, Non-Uniform Random Variate Generation, III.2.4). Above, the asymptotic inverse of Giles (2016, ACM
Trans. Math. Softw. 42, 10), whose mean and variance are those of the distribution to better than 1e-3.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import poisson

from dfxrm_control.config import NoiseConfig
from dfxrm_control.errors import ConfigError

from ._bands import over_bands

__all__ = ["EXACT_BELOW", "CameraNoise"]

EXACT_BELOW = 20.0
"""Mean photon number below which the photon noise is exact."""

_PIXEL_BITS = 26
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S12, _S27, _S28, _S30 = np.uint64(12), np.uint64(27), np.uint64(28), np.uint64(30)
_S31, _S32, _S52 = np.uint64(31), np.uint64(32), np.uint64(52)
_LOW_12, _LOW_24 = np.uint64(0xFFF), np.uint64(0xFFFFFF)
_TO_UNIT_52, _TO_UNIT_32 = 2.0**-52, 2.0**-32

_QUANTILES = 4096
# normal quantile at k/4096; the two infinite ends are never read (see _photons_tail)
_NORMAL = ndtri(np.clip(np.arange(_QUANTILES + 1) / _QUANTILES, 1e-12, 1 - 1e-12)).astype(np.float32)
# read noise: 4096 equally likely values with mean 0 and variance 1
_READ: NDArray = np.asarray(ndtri((np.arange(_QUANTILES) + 0.5) / _QUANTILES))
_READ = (_READ / _READ.std()).astype(np.float32)
# this close to either end the table is too coarse to interpolate
_TAIL = 16

_MEANS_PER_PHOTON = 8
# 128 is 24 sigma above the largest mean: the distribution function is 1 there to the last bit
_GRID_MEANS = np.arange(int(EXACT_BELOW) * _MEANS_PER_PHOTON)[:, np.newaxis] / _MEANS_PER_PHOTON
_CUMULATIVE: NDArray = np.asarray(poisson.cdf(np.arange(128), _GRID_MEANS))
_GUIDES = 256
# smallest photon number that any probability in [k/256, (k+1)/256) can have
_GUIDE = np.array(
    [np.searchsorted(row, np.arange(_GUIDES) / _GUIDES, side="right") for row in _CUMULATIVE], dtype=np.uint8
)


@njit(nogil=True, cache=True, inline="always")
def _word(key: np.uint64, counter: np.uint64) -> np.uint64:
    word = key + counter * _GOLDEN
    word = (word ^ (word >> _S30)) * _MIX_1
    word = (word ^ (word >> _S27)) * _MIX_2
    return word ^ (word >> _S31)


@njit(nogil=True, cache=True)
def _normal_tail(probability: float) -> float:
    """Quantile of the normal distribution far from its centre (Wichura 1988, Appl. Stat. 37, 477, AS 241 PPND7)."""
    r = math.sqrt(-math.log(min(probability, 1.0 - probability)))
    if r <= 5.0:
        r -= 1.6
        z = (((1.7023821103e-1 * r + 1.3067284816) * r + 2.7568153900) * r + 1.4234372777) / (
            (1.2021132975e-1 * r + 7.3700164250e-1) * r + 1.0
        )
    else:
        r -= 5.0
        z = (((1.7337203997e-2 * r + 4.2868294337e-1) * r + 3.0812263860) * r + 6.6579051150) / (
            (1.2258202635e-2 * r + 2.4197894225e-1) * r + 1.0
        )
    return -z if probability < 0.5 else z


@njit(nogil=True, cache=True)
def _photons_few(mean: float, word: np.uint64) -> int:
    """Return a Poisson number of a mean below `EXACT_BELOW`."""
    row = int(mean * _MEANS_PER_PHOTON)
    high = word >> _S32
    probability = (np.float64(np.int64(high)) + 0.5) * _TO_UNIT_32
    number = int(_GUIDE[row, np.int64(high) >> 24])
    while probability >= _CUMULATIVE[row, number]:
        number += 1
    rest = mean - row / _MEANS_PER_PHOTON
    again = (word ^ (word >> _S32)) * _MIX_1
    probability = (np.float64(np.int64(again >> _S32)) + 0.5) * _TO_UNIT_32
    # exp(-rest), rest below 1/8, to 1e-9
    term = 1.0 - rest * (1.0 - rest / 2.0 * (1.0 - rest / 3.0 * (1.0 - rest / 4.0 * (1.0 - rest / 5.0))))
    extra = 0
    while probability >= term and extra < 16:
        probability -= term
        extra += 1
        term *= rest / extra
    return number + extra


@njit(nogil=True, cache=True, inline="always")
def _expand(mean: np.float32, z: np.float32) -> np.float32:
    """Return the photon number z normal deviations up the Poisson distribution of a large mean (Giles 2016)."""
    safe = max(mean, np.float32(1.0))
    root, square = np.sqrt(safe), z * z
    number = (
        mean
        + root * z
        + (np.float32(1 / 3) + square * np.float32(1 / 6))
        - z * (np.float32(1 / 36) + square * np.float32(1 / 72)) / root
        + (np.float32(-8 / 405) + square * (np.float32(7 / 810) + square * np.float32(1 / 270))) / safe
    )
    return max(np.floor(number), np.float32(0.0))


@njit(nogil=True, cache=True, inline="always")
def _photons_many(mean: np.float32, word: np.uint64) -> np.float32:
    """Return very nearly a Poisson number of a mean of `EXACT_BELOW` or more; wrong in the tails."""
    cell = np.int64(word >> _S52)
    rest = np.float32(np.int64((word >> _S28) & _LOW_24)) * np.float32(2.0**-24)
    return _expand(mean, _NORMAL[cell] + rest * (_NORMAL[cell + 1] - _NORMAL[cell]))


@njit(nogil=True, cache=True)
def _photons_tail(mean: np.float32, word: np.uint64) -> np.float32:
    """Return the same where the table of normal quantiles is too coarse."""
    probability = (np.float64(np.int64(word >> _S12)) + 0.5) * _TO_UNIT_52
    return _expand(mean, np.float32(_normal_tail(probability)))


@njit(nogil=True, cache=True)
def _develop(
    first: int,
    last: int,
    out: NDArray,
    image: NDArray,
    image_row: NDArray,
    image_column: NDArray,
    row_gain: NDArray,
    column_gain: NDArray,
    pedestal: NDArray,
    offset: np.float32,
    gain: np.float32,
    read_sigma: np.float32,
    saturation: np.float32,
    key: np.uint64,
    frame_counter: np.uint64,
    noisy: bool,
) -> None:
    """Interpolate the image at each pixel, draw photons and read noise, and digitise, for rows [first, last).

    ``image_row`` and ``image_column`` give the (fractional) place in the image of each row and column of the frame;
    places outside are dark. One short loop per step, in float32, which the compiler turns into vector code.
    """
    columns = out.shape[1]
    half, dark = np.float32(0.5), np.float32(0.0)
    words = np.empty(columns, np.uint64)
    adu = np.empty(columns, np.float32)
    mean = np.empty(columns, np.float32)
    many = np.empty(columns, np.float32)
    line = np.empty(image.shape[1], np.float32)
    left = np.empty(columns, np.int32)
    right = np.empty(columns, np.float32)
    across_gain = np.empty(columns, np.float32)
    for column in range(columns):
        across = image_column[column]
        inside = 0.0 <= across < image.shape[1] - 1
        left[column] = int(across) if inside else 0
        right[column] = across - left[column] if inside else dark
        across_gain[column] = column_gain[column] if inside else dark
    for row in range(first, last):
        counter = frame_counter + np.uint64(row * columns)
        for column in range(columns):
            words[column] = _word(key, counter + np.uint64(column))
        for column in range(columns):
            adu[column] = pedestal[row, column] + (offset + read_sigma * _READ[words[column] & _LOW_12])
        place = image_row[row]
        if 0.0 <= place < image.shape[0] - 1:
            low = int(place)
            up = np.float32(place - low)
            for column in range(line.size):
                line[column] = (image[low, column] + up * (image[low + 1, column] - image[low, column])) * row_gain[row]
            for column in range(columns):
                value = line[left[column]]
                mean[column] = (value + right[column] * (line[left[column] + 1] - value)) * across_gain[column]
            for column in range(columns):
                many[column] = _photons_many(mean[column], words[column])
            for column in range(columns):
                photons = mean[column]
                if not noisy:
                    adu[column] += gain * photons
                elif photons >= EXACT_BELOW:
                    cell = words[column] >> _S52
                    if _TAIL <= cell < _QUANTILES - _TAIL:
                        adu[column] += gain * many[column]
                    else:
                        adu[column] += gain * _photons_tail(photons, words[column])
                elif photons > dark:
                    adu[column] += gain * np.float32(_photons_few(np.float64(photons), words[column]))
        for column in range(columns):
            out[row, column] = np.uint16(min(max(adu[column] + half, dark), saturation))


class CameraNoise:
    """What one camera makes of the photons it is shown.

    Parameters
    ----------
    config : NoiseConfig
        The noise of the camera.
    rows, columns : int
        Its shape.
    seed : int
        Seed of the twin.
    camera : str
        Name of the camera: two cameras of one twin share no noise.

    Raises
    ------
    ConfigError
        When the camera has more pixels than the noise has counters for (2^26).
    """

    def __init__(self, config: NoiseConfig, rows: int, columns: int, seed: int, camera: str) -> None:
        if rows * columns > 1 << _PIXEL_BITS:
            raise ConfigError(f"camera {camera!r} has {rows} x {columns} pixels; the twin can make noise for 2^26")
        self._config = config
        self._shape = (rows, columns)
        digest = hashlib.blake2b(f"{seed}/{camera}".encode(), digest_size=16).digest()
        self._key = np.uint64(int.from_bytes(digest[:8], "little"))
        self.pedestal = _pedestal(config, rows, columns, np.random.default_rng(int.from_bytes(digest[8:], "little")))

    def frame(
        self,
        image: NDArray,
        image_row: NDArray,
        image_column: NDArray,
        row_gain: NDArray,
        column_gain: NDArray,
        exposure_s: float,
        number: int,
        *,
        noisy: bool = True,
    ) -> NDArray:
        """Return one frame.

        Parameters
        ----------
        image : ndarray of float32, shape (m, n)
            Mean detected photons per pixel and exposure, on a grid of its own.
        image_row, image_column : ndarray of float, shapes (rows,) and (columns,)
            Where in ``image`` each row and column of the frame looks, in (fractional) elements of ``image``. The image
            is interpolated linearly; outside it is dark.
        row_gain, column_gain : ndarray of float32, shapes (rows,) and (columns,)
            Factors on the mean photons, e.g. vignetting.
        exposure_s : float
            Exposure time, which offset and dark variance grow with, in seconds.
        number : int
            Frame number, >= 0: the key of the noise.
        noisy : bool
            Whether photon and read noise are drawn; without, pixels hold the rounded mean.

        Returns
        -------
        ndarray of uint16, shape (rows, columns)
            In ADU.
        """
        config = self._config
        out = np.empty(self._shape, dtype=np.uint16)
        # the camera's variance was measured on integers, so it holds the 1/12 of the rounding already
        read_variance = config.read_variance_adu2 + config.dark_variance_rate_adu2_per_s * exposure_s - 1 / 12
        over_bands(
            _develop,
            self._shape[0],
            out,
            np.ascontiguousarray(image, dtype=np.float32),
            np.ascontiguousarray(image_row, dtype=np.float64),
            np.ascontiguousarray(image_column, dtype=np.float64),
            np.ascontiguousarray(row_gain, dtype=np.float32),
            np.ascontiguousarray(column_gain, dtype=np.float32),
            self.pedestal,
            np.float32(config.offset_adu + config.offset_rate_adu_per_s * exposure_s),
            np.float32(config.gain_adu_per_photon),
            np.float32(math.sqrt(max(read_variance, 0.0)) if noisy else 0.0),
            np.float32(config.saturation_adu),
            self._key,
            np.uint64((number << _PIXEL_BITS) & 0xFFFFFFFFFFFFFFFF),
            noisy,
        )
        return out

    def flux(self, mean: float, number: int) -> float:
        """Return one Poisson-distributed monitor count of a frame; drawn apart from the words of its pixels."""
        key = int(self._key) ^ 0x5DEECE66D
        return float(np.random.default_rng([key & 0xFFFFFFFF, key >> 32, number]).poisson(mean))


def _pedestal(config: NoiseConfig, rows: int, columns: int, random: np.random.Generator) -> NDArray:
    """Return what stands in every frame: fixed pattern, warm pixels and raised edge rows, in ADU, float32."""
    pedestal = random.normal(0.0, config.fixed_pattern_adu, (rows, columns)).astype(np.float32)
    warm = random.random((rows, columns)) < config.warm_fraction
    pedestal[warm] += random.exponential(config.warm_scale_adu, int(warm.sum())).astype(np.float32)
    from_edge = np.minimum(np.arange(rows), np.arange(rows)[::-1])
    raised = config.edge_adu * np.clip(1 - from_edge / max(config.edge_rows, 1), 0, None)
    if config.edge_rows:
        pedestal += raised.astype(np.float32)[:, np.newaxis]
    return pedestal
