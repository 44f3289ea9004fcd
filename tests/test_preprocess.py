"""Views are cut where their plan says, and native pixels are copied, not resampled."""

import numpy as np
import pytest
from PIL import Image

from detector.preprocess import View, make_views
from tests.conftest import make_photo

SIZE = 32


def test_views_are_stacked_channel_first() -> None:
    views = make_views(make_photo(), [View(kind="whole"), View(kind="crop")], SIZE)
    assert views.shape == (2, 3, SIZE, SIZE)
    assert views.dtype == np.uint8


def test_a_native_crop_is_a_copy() -> None:
    photo = make_photo(101, 77)
    cut = make_views(photo, [View(kind="crop", centre=(1.0, 0.5))], SIZE)[0].transpose(1, 2, 0)
    expected = np.asarray(photo)[22 : 22 + SIZE, 101 - SIZE :]
    np.testing.assert_array_equal(cut, expected)


def test_a_whole_view_covers_the_photo() -> None:
    assert View(kind="whole").box(640, 480, SIZE) == (0, 0, 640, 480)


@pytest.mark.parametrize(("width", "height"), [(1000, 500), (500, 1000), (333, 512)])
def test_a_crop_at_a_set_scale_covers_the_same_share_of_any_size(width: int, height: int) -> None:
    left, top, right, bottom = View(kind="crop", long_side=64).box(width, height, SIZE)
    assert right - left == pytest.approx(SIZE * max(width, height) / 64)
    assert right - left == pytest.approx(bottom - top)


def test_a_photo_is_never_enlarged_for_a_crop() -> None:
    left, _, right, _ = View(kind="crop", long_side=4096).box(100, 80, SIZE)
    assert right - left == SIZE


def test_a_side_shorter_than_the_square_is_used_in_full() -> None:
    assert View(kind="crop").box(100, 20, SIZE)[1::2] == (0, 20)
    assert make_views(make_photo(100, 20), [View(kind="crop")], SIZE).shape == (1, 3, SIZE, SIZE)


def test_crops_stay_inside_the_photo() -> None:
    for centre in ((0.0, 0.0), (1.0, 1.0), (0.5, 0.3)):
        left, top, right, bottom = View(kind="crop", long_side=90, centre=centre).box(300, 211, SIZE)
        assert left >= 0
        assert top >= 0
        assert right <= 300
        assert bottom <= 211


def test_colours_keep_their_channels() -> None:
    red = Image.new("RGB", (50, 50), (200, 10, 30))
    view = make_views(red, [View(kind="whole")], SIZE)[0]
    assert [int(channel.mean()) for channel in view] == [200, 10, 30]
