"""RandAugment: what every operation does, beside Pillow, and how they are drawn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from d2v_core.data.operations import COLOURS, FACTORS, MOVES, OPERATIONS, OperationsConfig, distort, operate
from d2v_core.data.order import key

PUBLISHED = OperationsConfig(2, 9.0, 0.5)
GRAY = [128.0] * 3
seeds = st.integers(0, 10**6)
shapes = st.tuples(st.sampled_from([1, 3]), st.sampled_from([8, 13, 32]))


def picture(channels: int = 3, size: int = 32, seed: int = 0) -> torch.Tensor:
    """Smooth waves and a square with edges, so that every operation has something to do."""
    rng = np.random.default_rng(seed)
    place = np.arange(size) / size
    waves = [np.sin(6 * place[:, None] + rng.uniform(0, 6)) + np.cos(5 * place[None] + rng.uniform(0, 6))] * channels
    values = 110 + 45 * np.stack(waves) * rng.uniform(0.5, 1, (channels, 1, 1))
    values[:, 4:7, 4:7] += 60
    return torch.from_numpy(np.clip(values, 0, 255).astype(np.uint8))


def pillow(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def apart(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


THEIRS = {  # at a magnitude of 9, and at one of 5 against the direction
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "posterize": lambda image, signed: ImageOps.posterize(image, {0.9: 1, -0.5: 2}[signed]),
    "solarize": lambda image, signed: ImageOps.solarize(image, {0.9: 26, -0.5: 128}[signed]),
    "solarize_add": lambda image, signed: image.point(
        [v + {0.9: 99, -0.5: 55}[signed] * (v < 128) for v in range(256)] * 3
    ),
    "saturation": lambda image, signed: ImageEnhance.Color(image).enhance({0.9: 1.81, -0.5: 0.55}[signed]),
    "contrast": lambda image, signed: ImageEnhance.Contrast(image).enhance({0.9: 1.81, -0.5: 0.55}[signed]),
    "brightness": lambda image, signed: ImageEnhance.Brightness(image).enhance({0.9: 1.81, -0.5: 0.55}[signed]),
    "sharpness": lambda image, signed: ImageEnhance.Sharpness(image).enhance({0.9: 1.81, -0.5: 0.55}[signed]),
}


@pytest.mark.parametrize("signed", [0.9, -0.5])
@pytest.mark.parametrize("name", THEIRS)
def test_colours_change_as_pillow_changes_them(name, signed):
    image = picture()
    ours, theirs = operate(name, image, signed, GRAY), tensor(THEIRS[name](pillow(image), signed))
    assert apart(ours, theirs) <= (2 if name in ("autocontrast", "equalize", *FACTORS) else 0)
    assert apart(ours, image) > 2


@pytest.mark.parametrize(
    ("name", "matrix"),
    [
        ("shear_x", lambda s: (1, 0.3 * s, 0, 0, 1, 0)),
        ("shear_y", lambda s: (1, 0, 0, 0.3 * s, 1, 0)),
        ("translate_x", lambda s: (1, 0, 0.45 * 32 * s, 0, 1, 0)),
        ("translate_y", lambda s: (1, 0, 0, 0, 1, 0.45 * 32 * s)),
        ("rotate", None),
    ],
)
def test_moves_are_those_of_pillow_in_one_direction_and_the_other(name, matrix):
    image, options = picture(), {"resample": Image.Resampling.BILINEAR, "fillcolor": (128, 128, 128)}
    assert name in MOVES
    for signed in (0.9, -0.5):
        ours = operate(name, image, signed, GRAY)
        found = []
        for sign in (signed, -signed):
            source = pillow(image)
            moved = source.transform((32, 32), Image.Transform.AFFINE, matrix(sign), **options) if matrix else None
            theirs = tensor(moved or source.rotate(30 * sign, **options))
            found.append(float(((ours.int() - theirs.int()).abs() <= 3).float().mean()))
        assert max(found) > 0.9, "all but the border to what is filled"
        assert min(found) < 0.7


def test_there_are_the_fifteen_published_operations():
    assert len(set(OPERATIONS)) == 15
    assert set(COLOURS) | set(FACTORS) == set(THEIRS)


@given(seeds, shapes)
def test_the_same_key_gives_the_same_picture_of_the_same_shape(seed, shape):
    image = picture(*shape)
    before = image.clone()
    once, again = (distort(image, key(seed), PUBLISHED, [128.0] * shape[0]) for _ in range(2))
    assert torch.equal(once, again)
    assert (once.dtype, once.shape) == (torch.uint8, image.shape)
    assert torch.equal(image, before), "the picture itself stays"


def test_no_draw_touches_the_generator_of_torch():
    state = torch.random.get_rng_state()
    for seed in range(50):
        distort(picture(), key(seed), PUBLISHED, GRAY)
    assert torch.equal(state, torch.random.get_rng_state())


def test_other_keys_give_other_pictures_and_a_quarter_is_left_alone():
    image = picture()
    views = [distort(image, key(seed), PUBLISHED, GRAY) for seed in range(400)]
    same = np.mean([torch.equal(view, image) for view in views])
    assert same == pytest.approx(0.25, abs=0.07), "each of two operations is done half of the time"
    assert len({view.numpy().tobytes() for view in views}) > 200


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("signed", [-1.0, 0.0, 1.0])
def test_no_strength_is_too_much_or_too_little(name, signed):
    for channels in (1, 3):
        assert operate(name, picture(channels), signed, [0.0] * channels).shape == (channels, 32, 32)
    if signed == 0 and name not in ("autocontrast", "equalize", "invert", "posterize"):
        assert apart(operate(name, picture(), signed, GRAY), picture()) == 0


@pytest.mark.parametrize("values", [(0, 9.0, 0.5), (2, 11.0, 0.5), (2, -1.0, 0.5), (2, 9.0, -0.1)])
def test_operations_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match=r"count|magnitude|spread"):
        OperationsConfig(*values)
