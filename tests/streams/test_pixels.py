from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from greentrain.streams import pixels

IMAGE = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0))
KEY = (0, 0, 5)


@pytest.mark.parametrize("turns", [1, 2, 3, -1])
def test_quarter_turns_move_pixels_counter_clockwise(turns: int) -> None:
    expected = torch.rot90(IMAGE, turns, (-2, -1))
    torch.testing.assert_close(pixels.rotate(IMAGE, 90.0 * turns), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("angle_deg", [17.0, 45.0, 200.0, -30.0])
@pytest.mark.parametrize("shape", [(9, 9), (8, 12), (13, 6)])
def test_a_turn_is_that_of_scipy(angle_deg: float, shape: tuple[int, int]) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    ours = pixels.rotate(image, angle_deg)
    theirs = scipy.ndimage.rotate(image.numpy(), angle_deg, reshape=False, order=1)
    # Beyond the edge scipy takes 0 at once, and torch fades within half a pixel: compare where
    # every point within reach comes from inside.
    height, width = shape
    y, x = np.mgrid[:height, :width] - np.array([height - 1, width - 1]).reshape(2, 1, 1) / 2
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    inside = (abs(cos * y + sin * x) < height / 2 - 1) & (abs(cos * x - sin * y) < width / 2 - 1)
    assert inside.sum() > 0.2 * inside.size
    np.testing.assert_allclose(ours.numpy()[inside], theirs[inside], atol=1e-5)


def test_what_comes_into_view_is_black() -> None:
    corners = pixels.rotate(torch.ones(1, 9, 9), 45.0)[0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.tolist() == [0.0] * 4


def test_no_turn_is_the_image_itself() -> None:
    assert pixels.rotate(IMAGE, 0.0) is IMAGE


def test_permuting_keeps_shape_and_values() -> None:
    image = torch.arange(6.0).reshape(1, 2, 3)
    order = torch.tensor([5, 4, 3, 2, 1, 0])
    assert pixels.permute(image, order).tolist() == [[[5.0, 4.0, 3.0], [2.0, 1.0, 0.0]]]


def test_noise_has_the_deviation_asked_for_and_stays_in_range() -> None:
    grey = torch.full((1, 200, 200), 0.5)
    noisy = pixels.noise(grey, 0.1, KEY)
    # 5 deviations reach the bounds, so that nothing is cut off here; 40,000 values.
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.02)
    assert float(noisy.mean()) == pytest.approx(0.5, abs=0.003)
    extreme = pixels.noise(grey, 1.0, KEY)
    assert (float(extreme.min()), float(extreme.max())) == (0.0, 1.0)
    assert noisy.dtype == torch.float32


def test_noise_is_the_same_for_the_same_key_only() -> None:
    assert torch.equal(pixels.noise(IMAGE, 0.3, KEY), pixels.noise(IMAGE, 0.3, KEY))
    for other in ((1, 0, 5), (0, 1, 5), (0, 0, 6)):
        assert not torch.equal(pixels.noise(IMAGE, 0.3, KEY), pixels.noise(IMAGE, 0.3, other))


@pytest.mark.parametrize("severity", [0.1, 0.5, 1.0])
def test_blur_is_that_of_scipy(severity: float) -> None:
    sigma = severity * 0.1 * 9
    reach = max(1, math.ceil(3 * sigma))
    weights = np.diff(scipy.stats.norm(scale=sigma).cdf(np.arange(-reach, reach + 2) - 0.5))
    theirs = IMAGE.numpy().astype(np.float64)
    for axis in (1, 2):
        theirs = scipy.ndimage.correlate1d(theirs, weights / weights.sum(), axis, mode="nearest")
    np.testing.assert_allclose(pixels.blur(IMAGE, severity, KEY).numpy(), theirs, atol=1e-5)


def test_contrast_goes_to_the_mean() -> None:
    image = torch.tensor([[0.0, 1.0], [0.5, 0.1]])  # their mean is 0.4
    expected = torch.tensor([[0.2, 0.7], [0.45, 0.25]])  # half of the way
    torch.testing.assert_close(pixels.contrast(image, 0.5, KEY), expected)
    torch.testing.assert_close(pixels.contrast(image, 1.0, KEY), torch.full((2, 2), 0.4))


def test_invert_goes_to_the_negative_through_grey() -> None:
    image = torch.tensor([[0.0, 1.0, 0.2]])
    torch.testing.assert_close(pixels.invert(image, 1.0, KEY), torch.tensor([[1.0, 0.0, 0.8]]))
    torch.testing.assert_close(pixels.invert(image, 0.5, KEY), torch.full((1, 3), 0.5))
    torch.testing.assert_close(pixels.invert(image, 0.25, KEY), torch.tensor([[0.25, 0.75, 0.35]]))


@pytest.mark.parametrize("kind", sorted(pixels.KINDS))
@pytest.mark.parametrize("shape", [(5, 7), (1, 28, 28), (3, 4, 4)])
def test_shape_type_and_range_stay(kind: str, shape: tuple[int, ...]) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    before = image.clone()
    for severity in (0.01, 0.5, 1.0):
        seen = pixels.KINDS[kind](image, severity, KEY)
        assert (seen.shape, seen.dtype) == (image.shape, image.dtype)
        assert -1e-6 <= float(seen.min()) <= float(seen.max()) <= 1 + 1e-6
        assert not torch.allclose(seen, image, atol=1e-4) or (kind, severity) == ("blur", 0.01)
    assert torch.equal(image, before)


@pytest.mark.parametrize("kind", sorted(pixels.KINDS))
def test_the_more_severe_the_further_from_the_image(kind: str) -> None:
    distances = [
        float((pixels.KINDS[kind](IMAGE, severity, KEY) - IMAGE).abs().mean())
        for severity in (0.1, 0.3, 0.6, 1.0)
    ]
    assert distances == sorted(distances)
    assert distances[0] < distances[-1]
