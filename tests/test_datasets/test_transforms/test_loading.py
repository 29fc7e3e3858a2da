"""LoadImageFromFile and LoadImageFromBytes: strict, whoever asks for them."""

import errno
import os
import time
from email.message import Message
from urllib.error import HTTPError, URLError

import mmcv
import numpy as np
import pytest
from mmengine import fileio
from mmengine.registry import TRANSFORMS
from mmpretrain.registry import TRANSFORMS as MMPRETRAIN
from mmseg.registry import TRANSFORMS as MMSEG

from nepa_mm.datasets import LoadImageFromFile, UnreadableImage
from nepa_mm.datasets.files import is_state_of_file
from tests.damaged import DAMAGE, UNUSUAL, encode, picture


@pytest.mark.parametrize('registry', [TRANSFORMS, MMPRETRAIN, MMSEG], ids=['root', 'mmpretrain', 'mmseg'])
def test_the_name_of_the_hosts_builds_ours(registry):
    assert type(registry.build(dict(type='LoadImageFromFile'))) is LoadImageFromFile
    assert issubclass(LoadImageFromFile, mmcv.transforms.LoadImageFromFile)


@pytest.mark.parametrize('to_float32', [False, True])
def test_a_file(tmp_path, to_float32):
    path = tmp_path / 'a.png'
    path.write_bytes(encode(picture(), 'PNG'))
    results = LoadImageFromFile(to_float32=to_float32)(dict(img_path=str(path)))
    assert np.array_equal(results['img'][..., ::-1], picture())
    assert results['img'].dtype == (np.float32 if to_float32 else np.uint8)
    assert results['img_shape'] == results['ori_shape'] == (48, 64)


def test_bytes_are_not_carried_on():
    given = dict(img_path='set[3]', img_bytes=UNUSUAL['cmyk'][1](0))
    results = TRANSFORMS.build(dict(type='LoadImageFromBytes'))(given)
    assert results['img'].shape == (48, 64, 3) and 'img_bytes' not in results
    with pytest.raises(UnreadableImage, match=r"image 'set\[3\]' cannot be read: empty, 0 bytes"):
        TRANSFORMS.build(dict(type='LoadImageFromBytes'))(dict(img_path='set[3]', img_bytes=b''))


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / 'a.jpg'
    for _, make in DAMAGE.values():
        path.write_bytes(make(0))
        with pytest.raises(UnreadableImage) as error:
            LoadImageFromFile()(dict(img_path=str(path)))
        assert error.value.source == str(path)
    path.unlink()
    with pytest.raises(UnreadableImage, match=r"a\.jpg' cannot be read: No such file or directory"):
        LoadImageFromFile()(dict(img_path=str(path)))
    path.mkdir()
    with pytest.raises(UnreadableImage, match=r"a\.jpg' cannot be read: Is a directory"):
        LoadImageFromFile()(dict(img_path=str(path)))


@pytest.fixture
def failing(monkeypatch):
    """Reading fails, as often as asked and with this error; gives the pauses that were made."""

    def start(times: int, *error) -> list[float]:
        left, pauses, get = [times], [], fileio.get

        def flaky(path, **kwargs):
            left[0] -= 1
            if left[0] >= 0:
                raise OSError(*error)
            return get(path, **kwargs)

        monkeypatch.setattr(fileio, 'get', flaky)
        monkeypatch.setattr(time, 'sleep', pauses.append)
        return pauses

    return start


@pytest.mark.parametrize('number', [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM, errno.ETIMEDOUT])
def test_a_failure_that_passes_is_no_bad_image(tmp_path, failing, number):
    path = tmp_path / 'a.png'
    path.write_bytes(encode(picture(), 'PNG'))
    pauses = failing(3, number, os.strerror(number))
    assert np.array_equal(LoadImageFromFile()(dict(img_path=str(path)))['img'][..., ::-1], picture())
    assert pauses == [0.1, 0.5, 2.0]


@pytest.mark.parametrize('step', ['LoadImageFromFile', 'LoadEncodedImage', 'LoadAnnotations'])
def test_a_failure_that_stays_is_no_bad_image_either(tmp_path, failing, step):
    failing(4, errno.EIO, 'Input/output error')
    given = dict(img_path='a.png', seg_map_path='a.png', reduce_zero_label=False, seg_fields=[])
    with pytest.raises(OSError, match=r"\[Errno 5\] Input/output error: 'a\.png'$"):
        MMSEG.build(dict(type=step))(given)


def test_the_state_of_a_file_is_told_at_once(failing):
    for number in (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG):
        pauses = failing(1, number, os.strerror(number), 'a.jpg')
        with pytest.raises(UnreadableImage, match=f"image 'a.jpg' cannot be read: {os.strerror(number)}"):
            LoadImageFromFile()(dict(img_path='a.jpg'))
        assert pauses == []
    absent = HTTPError('http://a', 404, 'Not Found', Message(), None)
    assert is_state_of_file(absent) and not is_state_of_file(URLError('timed out'))


def test_settings(tmp_path):
    path = tmp_path / 'a.jpg'
    path.write_bytes(encode(picture()))
    given = dict(img_path=str(path))
    with pytest.raises(UnreadableImage, match='more pixels than max_pixels of its loader allows: 64 x 48, limit 100'):
        LoadImageFromFile(max_pixels=100)(given)
    assert LoadImageFromFile(color_type='grayscale')(given)['img'].shape == (48, 64)
    path.write_bytes(b'text')
    assert LoadImageFromFile(ignore_empty=True)(given) is None
    for backend in ('cv2', 'pillow'):
        with pytest.raises(UnreadableImage, match=r"a\.jpg' cannot be read: ."):
            LoadImageFromFile(color_type='grayscale', imdecode_backend=backend)(given)
    assert LoadImageFromFile(ignore_empty=True)(dict(img_path=str(tmp_path / 'gone'))) is None
