"""The spline: straight points change nothing, moved points move the image, each image in its own width."""

import torch

from hf_ocr.models.thin_plate_spline import ThinPlateSplineRectifier, _points, _warped

WIDTHS = torch.tensor([60, 40])


def images() -> torch.Tensor:
    pixel_values = torch.rand(2, 1, 32, 60, generator=torch.Generator().manual_seed(0))
    pixel_values[1, ..., 40:] = 0
    return pixel_values


def straight() -> torch.Tensor:
    return torch.from_numpy(_points(8)).float().expand(2, -1, -1).clone()


def test_straight_points_change_nothing():
    warped = _warped(images(), WIDTHS, straight())
    torch.testing.assert_close(warped[0], images()[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(warped[1, ..., :40], images()[1, ..., :40], atol=1e-4, rtol=0)


def test_straight_points_change_nothing_under_autocast_either():
    """As in training in 16 bits, at which a spline of many points would tear the image apart."""
    pixel_values = torch.rand(1, 1, 32, 128, generator=torch.Generator().manual_seed(0))
    points, widths = torch.from_numpy(_points(20)).float()[None], torch.tensor([128])
    with torch.autocast("cpu", torch.bfloat16):
        warped = _warped(pixel_values, widths, points)
    torch.testing.assert_close(warped, _warped(pixel_values, widths, points), atol=0, rtol=0)
    torch.testing.assert_close(warped, pixel_values, atol=5e-3, rtol=0)


def test_points_two_px_further_down_move_the_image_up():
    points = straight()
    points[..., 1] += 2 * 2 / 32
    warped = _warped(images(), WIDTHS, points)
    torch.testing.assert_close(warped[0, :, :-2], images()[0, :, 2:], atol=1e-4, rtol=0)


def test_slanted_text_becomes_upright():
    """A stroke that leans to the right by 8 px, with points that lean with it."""
    pixel_values = torch.zeros(1, 1, 32, 60)
    for row in range(32):
        column = 34 - round((row - 16) / 4)
        pixel_values[0, 0, row, column - 1 : column + 2] = 1
    points = straight()[:1]
    points[..., 0] -= points[..., 1] * 4 * 2 / 60
    columns = _warped(pixel_values, torch.tensor([60]), points)[0, 0, 4:28].argmax(-1)
    assert columns.max() - columns.min() <= 1


def test_fresh_weights_leave_the_image_nearly_as_it_is_whatever_is_beside_it():
    torch.manual_seed(0)
    rectifier = ThinPlateSplineRectifier(1, 8).eval()
    rectifier.reset_parameters()
    smooth = torch.nn.functional.avg_pool2d(images(), 5, 1, 2) * (torch.arange(60) < WIDTHS[:, None])[:, None, None]
    with torch.no_grad():
        together = rectifier(smooth, WIDTHS)
        alone = rectifier(smooth[1:, ..., :40], WIDTHS[1:])
    assert (together[0] - smooth[0]).abs().max() < 0.05
    torch.testing.assert_close(together[1:, ..., :40], alone, atol=1e-5, rtol=0)
    assert not together[1, ..., 40:].any()
