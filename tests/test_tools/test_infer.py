"""tools/infer.py: what it writes for images, folders and videos, and what it says of bad files."""

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import nepa_mm
from nepa_mm.apis.infer import output_names
from tests.predictors import SIZES, make_site, noise, write

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'infer.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return make_site(tmp_path_factory.mktemp('site'))


@pytest.fixture
def infer(folder, monkeypatch, tmp_path):
    """Call the tool in the site's folder; its exit status."""
    monkeypatch.chdir(folder)

    def call(name, *words):
        words = [str(word) for word in words]
        monkeypatch.setattr(sys, 'argv', ['infer.py', '--device', 'cpu', f'{name}.py', f'{name}.pth', *words])
        with pytest.raises(SystemExit) as status:
            runpy.run_path(str(TOOL), run_name='__main__')
        return status.value.code

    return call


def label_map(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_a_folder_of_scenes(infer, tmp_path, capsys):
    assert infer('segment', 'scenes/images', '--out', tmp_path, '--opacity', 1, '--batch-size', 2) == 0
    model = nepa_mm.get_model('segment.py', 'segment.pth', device='cpu')
    expected = nepa_mm.segment(model, 'scenes/images')
    for i, result in enumerate(expected):
        # reduce_zero_label: in the annotations 0 is "no label"
        assert np.array_equal(label_map(tmp_path / f'label_maps/{i}.png'), result.label_map + 1)
        overlay = cv2.imread(str(tmp_path / f'overlays/{i}.png'))
        image = cv2.imread(f'scenes/images/{i}.png')
        assert np.array_equal(overlay, result.draw(image, opacity=1.0))
    report = json.loads((tmp_path / 'results.json').read_text())
    assert report['label_map_values'] == {'1': 'sky', '2': 'road', '3': 'tree'}
    assert report['checkpoint'] == 'segment.pth' and report['skipped'] == []
    assert report['files'] == [result.to_dict() | dict(name=str(i)) for i, result in enumerate(expected)]
    out = capsys.readouterr().out
    best, share = next(iter(expected[0].shares.items()))
    assert f'[1/3] scenes/images/0.png: {best} {100 * share:.1f} %' in out
    assert f'3 of 3 files; results in {tmp_path}' in out


def test_labels_that_start_at_zero(infer, tmp_path):
    words = ['--cfg-options', 'test_dataloader.dataset.reduce_zero_label=False']
    assert infer('segment', 'scenes/images/0.png', '--out', tmp_path, *words) == 0
    expected = nepa_mm.segment(nepa_mm.get_model('segment.py', 'segment.pth', device='cpu'), 'scenes/images/0.png')
    assert np.array_equal(label_map(tmp_path / 'label_maps/0.png'), expected.label_map)
    assert json.loads((tmp_path / 'results.json').read_text())['label_map_values']['0'] == 'sky'


def test_classes_of_images(infer, tmp_path, capsys):
    assert infer('classify', 'classes', '--out', tmp_path, '--topk', 2) == 0
    report = json.loads((tmp_path / 'results.json').read_text())
    model = nepa_mm.get_model('classify.py', 'classify.pth', device='cpu')
    expected = nepa_mm.classify(model, 'classes', topk=2)
    assert [entry['name'] for entry in report['files']] == [
        f'{n}/{i}' for n in ('ant', 'bee', 'cat', 'dog') for i in (0, 1)
    ]
    for entry, result in zip(report['files'], expected, strict=True):
        assert entry['top'] == [pytest.approx(score._asdict()) for score in result.top]
        assert cv2.imread(str(tmp_path / f'overlays/{entry["name"]}.png')).shape[0] == 320
    assert 'label_map_values' not in report and not (tmp_path / 'label_maps').exists()
    first = expected[0].top[0]
    assert f'[1/8] classes/ant/0.png: {first.class_name} {100 * first.score:.1f} %, ' in capsys.readouterr().out


@pytest.mark.skipif(sys.platform in ('win32', 'darwin'), reason='names are Unicode there')
@pytest.mark.parametrize('name', ['segment', 'classify'])
def test_a_name_that_is_not_utf8(infer, tmp_path, capsys, name):
    """What is written and printed for it can be read, and leads to the file."""
    names = (b'stra\xdfe.png', b'stra\xdfe.jpg', b'stra\xdfe.mp4')
    good, bad, video = (tmp_path / 'in' / os.fsdecode(file) for file in names)
    write(tmp_path / 'in/good.png', noise(np.random.default_rng(0), SIZES[0]))
    (tmp_path / 'in/good.png').rename(good)
    assert infer(name, tmp_path / 'in', '--out', tmp_path / 'out') == 0
    written = list((tmp_path / 'out').glob('*/*.png'))
    assert {file.name for file in written} == {good.name} and len(written) == (2 if name == 'segment' else 1)
    assert all(file.read_bytes().startswith(b'\x89PNG') for file in written)
    assert '/in/stra\\udcdfe.png: ' in capsys.readouterr().out
    bad.write_text('hello')
    video.write_bytes(b'')
    sys.stderr.reconfigure(errors='backslashreplace')  # as outside of a test
    assert infer(name, tmp_path / 'in', '--out', tmp_path / 'out') == 1
    report = json.loads((tmp_path / 'out/results.json').read_text(encoding='utf-8'))
    assert [entry['path'] for entry in report['files']] == [str(good)]
    assert [entry['path'] for entry in report['skipped']] == [str(bad), str(video)]


def test_bad_files_are_named_counted_and_skipped(infer, tmp_path, capsys):
    write(tmp_path / 'in/good.png', noise(np.random.default_rng(0), SIZES[0]))
    (tmp_path / 'in/text.jpg').write_text('hello')
    (tmp_path / 'in/empty.mp4').write_bytes(b'')
    content = (tmp_path / 'in/good.png').read_bytes()
    (tmp_path / 'in/cut.png').write_bytes(content[: len(content) // 2])
    assert infer('segment', tmp_path / 'in', '--out', tmp_path / 'out') == 1
    report = json.loads((tmp_path / 'out/results.json').read_text())
    assert [entry['name'] for entry in report['files']] == ['good']
    assert [Path(entry['path']).name for entry in report['skipped']] == ['cut.png', 'text.jpg', 'empty.mp4']
    said = capsys.readouterr()
    for name in ('cut.png', 'text.jpg', 'empty.mp4'):
        assert f"{tmp_path / 'in' / name}'" in said.err
    assert '3 files could not be read' in said.err and '1 of 4 files;' in said.out
    # One count for what is done and what is skipped.
    lines = (said.out + said.err).splitlines()
    assert sorted(line[:5] for line in lines if line.startswith('[')) == ['[1/4]', '[2/4]', '[3/4]', '[4/4]']
    assert infer('segment', tmp_path / 'in/text.jpg', '--out', tmp_path / 'one') == 1
    said = capsys.readouterr()
    assert '[1/1] skipped: image' in said.err and '1 file could not be read' in said.err and '0 of 1 file;' in said.out
    assert [p.name for p in (tmp_path / 'out/overlays').iterdir()] == ['good.png']


@pytest.mark.parametrize('name', ['segment', 'classify'])
def test_a_video(infer, tmp_path, name):
    rng = np.random.default_rng(0)
    frames = [noise(rng, (48, 64)) for _ in range(5)]
    writer = cv2.VideoWriter(str(tmp_path / 'in.avi'), cv2.VideoWriter.fourcc(*'MJPG'), 10, (64, 48))
    for frame in frames:
        writer.write(frame)
    writer.release()
    assert infer(name, tmp_path / 'in.avi', '--out', tmp_path / 'out', '--batch-size', 2) == 0
    report = json.loads((tmp_path / 'out/results.json').read_text())
    assert report['files'] == [dict(path=str(tmp_path / 'in.avi'), name='in', frames=5)]

    capture = cv2.VideoCapture(str(tmp_path / 'out/overlays/in.mp4'))
    pictures = []
    while (read := capture.read())[0]:
        pictures.append(read[1])
    assert len(pictures) == 5 and capture.get(cv2.CAP_PROP_FPS) == 10
    height, width = pictures[0].shape[:2]
    assert height == 320 and width > 427 and width % 2 == 0
    # beside the legend the frame shines through
    shown = [cv2.resize(picture[:, :427], (64, 48), interpolation=cv2.INTER_AREA) for picture in pictures]
    closest = [int(np.argmin([np.abs(s.astype(int) - frame).mean() for frame in frames])) for s in shown]
    assert closest == [0, 1, 2, 3, 4]
    maps = sorted((tmp_path / 'out').glob('label_maps/in/*.png'))
    assert [p.name for p in maps] == ([f'{i:06d}.png' for i in range(5)] if name == 'segment' else [])
    assert all(label_map(p).shape == (48, 64) for p in maps)


def test_names_of_what_is_written(tmp_path):
    for name in ('a.jpg', 'a.png', 'b/a.png', 'b/c.mp4', 'notes.txt', '.hidden/d.png'):
        (tmp_path / 'one' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'one' / name).touch()
    (tmp_path / 'two').mkdir()
    (tmp_path / 'two/e.png').touch()
    (tmp_path / 'e.png').touch()
    names = output_names([str(tmp_path / 'one'), str(tmp_path / 'two'), str(tmp_path / 'e.png')])
    assert {str(path.relative_to(tmp_path)): name for path, name in names.items()} == {
        'one/a.jpg': 'a.jpg',
        'one/a.png': 'a.png',
        'one/b/a.png': 'b/a',
        'one/b/c.mp4': 'b/c',
        'two/e.png': 'e.png',
        'e.png': 'e.png-2',
    }


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['gone.png'], "input 'gone.png' does not exist"),
        (['.empty'], "folder '.empty' holds neither images nor videos"),
        (['classes', '--opacity', '2'], '--opacity 2.0 is not in [0, 1]'),
        (['classes', '--batch-size', '0'], '--batch-size 0 is not a positive number'),
        (['classes', '--device', 'cuda:99'], "--device 'cuda:99' cannot be used here ("),
        (['classes', '--weights', 'ema'], 'holds no EMA weights'),
        (['classes', '--cfg-options', 'a'], "--cfg-options takes key=value, but got 'a'"),
    ],
)
def test_mistakes_are_named(infer, folder, tmp_path, words, message):
    (folder / '.empty').mkdir(exist_ok=True)
    status = infer('classify', '--out', tmp_path / 'out', *words)
    assert status.startswith('infer.py: ') and message in status
    assert not (tmp_path / 'out').exists()


def test_a_pretraining_is_refused(infer, tmp_path):
    status = infer('pretrain', 'classes', '--out', tmp_path)
    assert status.startswith('infer.py: pretrain.py makes a NEPA, which neither segments nor classifies')


def test_help_is_quick_and_a_missing_environment_is_named(tmp_path):
    start = time.perf_counter()
    done = subprocess.run([sys.executable, TOOL, '--help'], capture_output=True, text=True)
    assert time.perf_counter() - start < 2 and 'overlays/' in done.stdout
    words = [sys.executable, '-S', TOOL, 'a.py', 'b.pth', 'c.png', '--out', 'd']
    done = subprocess.run(words, capture_output=True, text=True, env={}, cwd=tmp_path)
    assert done.returncode == 1 and 'infer.py: nepa_mm is not installed for ' in done.stderr


def test_more_than_256_classes_need_two_bytes(tmp_path):
    """Label 299 must survive the way into the file."""
    from nepa_mm.apis.infer import Session, write_image
    from nepa_mm.apis.results import Segmentation

    labels = np.array([[0, 299]], dtype=np.uint16)
    model = torch.nn.Module()
    model.decode_head, model.dataset_meta = torch.nn.Module(), dict(reduce_zero_label=True)
    session = Session(model, type('Args', (), dict(out=tmp_path)), total=1)
    write_image(tmp_path / 'a.png', session.label_map(Segmentation(labels, (), [])))
    assert label_map(tmp_path / 'a.png').tolist() == [[1, 300]]
    # 0 is "no label", so the last of 256 classes is 256, not 0 again
    session.names = [''] * 256
    assert session.label_map(Segmentation(np.array([[0, 255]], np.uint8), (), [])).tolist() == [[1, 256]]
    session.names = [''] * 255
    assert session.label_map(Segmentation(np.array([[0, 254]], np.uint8), (), [])).dtype == np.uint8
