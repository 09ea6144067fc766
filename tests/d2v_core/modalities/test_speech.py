"""Waveforms: what is dropped, how they are cropped and padded, and what the convolutions make of them."""

import numpy as np
import pytest
import torch

from d2v_core.data.order import key
from d2v_core.errors import Dropped
from d2v_core.modalities import speech
from tests.d2v_core.blocks import PARAMS, rows, small_setup

SETUP, _ = small_setup("speech")
TABLE = SETUP.config.table


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(0), "empty"),
        (np.zeros(16000), "silent"),
        (np.full(16000, np.nan), "not finite"),
        (np.random.default_rng(0).normal(size=100), "duration"),
    ],
)
def test_waves_that_teach_nothing_are_dropped_with_a_reason(samples, reason):
    with pytest.raises(Dropped) as error:
        speech.rows(samples.astype(np.float32), TABLE)
    assert error.value.reason == reason


def test_samples_are_stored_to_sixteen_bits_and_clipped():
    row = speech.rows(np.r_[np.linspace(-1, 1, 16000), 3.0].astype(np.float32), TABLE)[0]
    assert row["audio"].dtype == np.int16
    assert row["audio"][0] == -32767
    assert row["audio"][-1] == 32767


def test_every_wave_is_normalised_before_it_is_cropped():
    batch = speech.batch(rows("speech", 3), [key(0, n) for n in range(3)], SETUP.config)["inputs"]
    assert batch.shape == (3, 9000), "cropped to the shortest"
    whole = speech.batch(rows("speech", 3), None, SETUP.config)
    assert whole["inputs"].shape == (3, 10000)
    assert whole["lengths"].tolist() == [9000, 9500, 10000]
    for wave, length in zip(whole["inputs"], whole["lengths"], strict=True):
        assert wave[:length].mean() == pytest.approx(0, abs=1e-4)
        assert wave[:length].std(correction=0) == pytest.approx(1, abs=1e-4)
        assert not wave[length:].any()


def test_short_waves_are_left_out_of_pretraining_and_long_ones_cropped():
    config = SETUP.config
    trainable = speech.trainable(np.array([0.1, 1.0, 100.0]), config)
    assert trainable.tolist() == [0.0, 1.0, config.crop.max_seconds]


@pytest.mark.parametrize(("samples", "frames"), [(400, 1), (16000, 49), (32000, 99), (320000, 999)])
def test_frames_per_wave_are_those_of_the_reference(samples, frames):
    assert speech.frames(samples, SETUP.config.local) == frames


def test_padding_does_not_change_what_is_said_of_a_wave():
    encoder = SETUP.encoder().eval()
    members = rows("speech", 3)
    together = encoder(speech.batch(members, None, SETUP.config))
    for number, row in enumerate(members):
        alone = encoder(speech.batch([row], None, SETUP.config)).x[0]
        real = together.x[number][~together.padding[number]]
        torch.testing.assert_close(real, alone, atol=1e-5, rtol=1e-5)


def test_the_sizes_of_the_paper_give_the_parameters_of_the_paper():
    block = {**PARAMS["modalities"]["speech"]}
    trunk = block["model"]["trunk"] | {"width": 768, "depth": 12, "heads": 12, "feedforward": 3072}
    local = block["model"]["local"] | {"channels": 512, "position_layers": 5, "position_kernel": 19}
    from d2v_core.setup import make_setup

    with torch.device("meta"):
        model = block["model"] | {"trunk": trunk, "local": local}
        encoder = make_setup("speech", block | {"model": model}, "").encoder()
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 93_164_288
