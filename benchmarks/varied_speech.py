"""Copies of recordings that sound like more speakers and rooms than there are."""

import numpy as np
import soxr

SPEEDS = 0.85, 1.2  # slower is lower, faster is higher
NOISE = 10.0, 40.0  # decibels below the speech
TILT = -0.5, 0.5  # share of the sample before


def varied(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return samples [N] faster or slower, brighter or duller, and with noise of a drawn colour."""
    speed, decibels = rng.uniform(*SPEEDS), rng.uniform(*NOISE)
    wave = tilted(soxr.resample(wave, speed, 1.0), rng)
    noise = tilted(rng.standard_normal(len(wave)), rng)
    return wave + noise * (wave.std() / noise.std() * 10 ** (-decibels / 20))


def tilted(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return samples [N], each with a drawn share of the one before: duller, or brighter with a negative one."""
    return wave + rng.uniform(*TILT) * np.concatenate([[0.0], wave[:-1]])


def whole(wave: np.ndarray) -> np.ndarray:
    """Return samples [N] as int16, as loud as it can be."""
    return np.round(wave * (32767 / np.abs(wave).max())).astype(np.int16)


def centred(audio: np.ndarray) -> np.ndarray:
    """Return samples [N] as float64 with zero mean and unit variance."""
    wave = audio.astype(float)
    return (wave - wave.mean()) / wave.std()
