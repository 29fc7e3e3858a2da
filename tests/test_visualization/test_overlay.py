"""Overlays: colours by value, a legend of the classes that occur, sizes."""

import cv2
import numpy as np
import pytest

from nepa_mm.visualization.overlay import LegendRow, add_legend, draw_classification, draw_segmentation

CLASSES = ('sky', 'a class with a long name', 'tree', 'never')
PALETTE = [[10, 20, 250], [250, 40, 30], [60, 240, 50], [200, 0, 200]]
RNG = np.random.default_rng(0)


def scene(height=400, width=480):
    """Left half sky, right half the second class, with a tree of 2 % in it."""
    label_map = np.zeros((height, width), np.uint8)
    label_map[:, width // 2 :] = 1
    label_map[: height // 5, : width // 10] = 2
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8), label_map


def count(picture, rgb):
    return int((picture == np.array(rgb)[::-1]).all(axis=-1).sum())


def test_colours_are_mixed_by_opacity():
    image, label_map = scene()
    for opacity in (0.0, 0.25, 1.0):
        drawn = draw_segmentation(image, label_map, CLASSES, PALETTE, opacity=opacity, legend=False)
        colors = np.array(PALETTE)[label_map][..., ::-1]
        assert np.abs(drawn - (image * (1 - opacity) + colors * opacity)).max() <= 0.5
        assert drawn.dtype == np.uint8


def test_the_legend_names_the_classes_that_occur():
    image, label_map = scene()
    drawn = draw_segmentation(image, label_map, CLASSES, PALETTE, opacity=0.0)
    assert np.array_equal(drawn[:, :480], image)
    panel = drawn[:, 480:]
    assert [count(panel, color) > 100 for color in PALETTE] == [True, True, True, False]
    # largest first: sky 48 %, the second 50 %
    rows = [np.argwhere((panel == np.array(color)[::-1]).all(-1))[:, 0].mean() for color in PALETTE[:3]]
    assert rows[1] < rows[0] < rows[2]
    assert count(draw_segmentation(image, label_map * 0, CLASSES, PALETTE, opacity=0.0)[:, 480:], PALETTE[1]) == 0


@pytest.mark.parametrize('size', [(20, 30), (3, 200), (400, 400), (400, 900), (2000, 1500)])
def test_text_grows_with_the_picture(size):
    """A swatch is as high as the text: at least 13 pixels, and about a thirtieth of the picture."""
    label_map = np.zeros(size, np.uint8)
    drawn = draw_segmentation(np.zeros((*size, 3), np.uint8), label_map, CLASSES, PALETTE, opacity=0.0)
    side = np.sqrt(count(drawn, PALETTE[0]))
    scale = max(1, 320 / min(size))
    assert side >= 11 and min(size) * scale / 36 <= side
    wide = size[1] > 1.6 * size[0]
    assert (drawn.shape[0] if wide else drawn.shape[1]) > round(size[0 if wide else 1] * scale)
    assert (drawn.shape[1] if wide else drawn.shape[0]) == round(size[1 if wide else 0] * scale)


def test_many_classes_take_more_columns():
    names, colors = [f'class {i}' for i in range(60)], [[i, 4 * i, 255 - i] for i in range(60)]
    label_map = np.arange(400 * 420).reshape(400, 420).astype(np.int64) % 60
    drawn = draw_segmentation(np.zeros((400, 420, 3), np.uint8), label_map.astype(np.uint8), names, colors, opacity=0.0)
    assert all(count(drawn[:, 420:], color) > 100 for color in colors)
    few = draw_segmentation(np.zeros((400, 420, 3), np.uint8), label_map.astype(np.uint8) % 5, names, colors)
    assert drawn.shape[1] - 420 > 3 * (few.shape[1] - 420)


def test_frames_of_a_video_are_of_one_size():
    """Whatever occurs in them; what has no room is counted."""
    names, colors = [f'class {i}' for i in range(60)], [[i, 4 * i, 255 - i] for i in range(60)]
    image = np.zeros((120, 160, 3), np.uint8)
    label_maps = [np.full((120, 160), 3, np.uint8), (np.arange(120 * 160).reshape(120, 160) % 60).astype(np.uint8)]
    pictures = [draw_segmentation(image, m, names, colors, opacity=0.0, fixed_width=True) for m in label_maps]
    assert pictures[0].shape == pictures[1].shape
    shown = sum(count(pictures[1], color) > 100 for color in colors)
    assert 5 < shown < 60
    # in the order of labels, whatever is largest
    columns = [np.argwhere((pictures[1] == np.array(color)[::-1]).all(-1))[:, 0] for color in colors]
    heights = [rows.mean() for rows in columns if len(rows) > 100]
    assert heights == sorted(heights)
    cls = [
        draw_classification(image, rows, ['x', 'a much longer name'])
        for rows in ([('x', 0.4)], [('a much longer name', 1)])
    ]
    assert cls[0].shape == cls[1].shape


def test_bars_are_as_long_as_the_probabilities():
    image = np.zeros((400, 400, 3), np.uint8)
    drawn = draw_classification(image, [('cat', 1.0), ('dog', 0.25)])
    bars = (drawn == np.array([200, 110, 40])).all(-1)
    lengths = sorted(set(bars.sum(axis=1)) - {0})
    assert len(lengths) == 2 and lengths[0] / lengths[1] == pytest.approx(0.25, abs=0.02)


def test_long_names_are_cut_and_names_beyond_ascii_are_drawn():
    image = np.zeros((400, 400, 3), np.uint8)
    short, long = (add_legend(image, [LegendRow('n' * length, '1 %')]).shape[1] for length in (41, 400))
    assert short == long
    plain, accents = (add_legend(image, [LegendRow(text)]) for text in ('uber', 'über'))
    assert not np.array_equal(plain, accents)


def test_mistakes():
    image, label_map = scene()
    with pytest.raises(ValueError, match='differ in size'):
        draw_segmentation(image[1:], label_map, CLASSES, PALETTE)
    with pytest.raises(ValueError, match='opacity=1.5'):
        draw_segmentation(image, label_map, CLASSES, PALETTE, opacity=1.5)


def test_a_small_image_is_enlarged_without_blur():
    image = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    drawn = draw_segmentation(image, np.zeros((40, 40), np.uint8), CLASSES, PALETTE, opacity=0.0)
    assert np.array_equal(drawn[:, :320], cv2.resize(image, (320, 320), interpolation=cv2.INTER_NEAREST))
