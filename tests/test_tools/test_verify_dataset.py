"""tools/misc/verify_dataset.py from the command line."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from tests.archives import mask, picture, write_folder

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'misc' / 'verify_dataset.py'
spec = importlib.util.spec_from_file_location('tool_verify_dataset', TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['verify_dataset.py', *map(str, arguments)])
    return tool.main()


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {f'images/{i}.jpg': picture(i) for i in range(3)} | {f'labels/{i}.png': mask([0, 1, 255]) for i in range(3)}
    return write_folder(tmp_path / 'data', files)


def test_folders(data, monkeypatch, capsys):
    arguments = ['--images', data / 'images', '--labels', data / 'labels', '--num-classes', 2]
    assert run(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        'train_dataloader: 3 samples, 0 bad files',
        '0 wrong, 0 worth a look',
    ]
    listed = Path('work_dirs/verify_dataset/images.txt')
    assert listed.read_text() == ''

    (data / 'labels' / '1.png').write_bytes(mask([0, 7]))
    (data / 'images' / '2.jpg').write_bytes(b'')
    assert run(monkeypatch, *arguments) == 1
    out = capsys.readouterr().out
    assert 'train_dataloader: 3 samples, 2 bad files' in out and f'bad files: {listed}' in out
    assert 'WRONG  1 images cannot be read\n         change: mend or remove the files in the list' in out
    assert '2 wrong, 0 worth a look' in out
    assert listed.read_text().splitlines() == [
        f'{data}/labels/1.png\tlabel 7: no class, and not ignored',
        f'{data}/images/2.jpg\tcannot be read: empty, 0 bytes',
    ]
    assert run(monkeypatch, '--images', data / 'images', '--out', data / 'bad.txt') == 1
    assert (data / 'bad.txt').read_text() == f'{data}/images/2.jpg\tcannot be read: empty, 0 bytes\n'


@pytest.mark.skipif(sys.platform in ('win32', 'darwin'), reason='names are Unicode there')
def test_a_name_that_is_not_utf8(data, monkeypatch, capsys):
    """As an unpacked archive from another system brings it; it stands in the list as it is on disk."""
    name = b'stra\xdfe.jpg'
    (data / 'images' / os.fsdecode(name)).write_bytes(b'')
    assert run(monkeypatch, '--images', data / 'images', '--out', data / 'bad.txt') == 1
    assert 'train_dataloader: 4 samples, 1 bad files' in capsys.readouterr().out
    listed = os.fsencode(data / 'images') + b'/' + name + b'\tcannot be read: empty, 0 bytes\n'
    assert (data / 'bad.txt').read_bytes() == listed


def test_strict(data, monkeypatch):
    (data / 'labels' / 'lost.png').write_bytes(mask([0]))
    arguments = ['--images', data / 'images', '--labels', data / 'labels', '--num-classes', '2']
    assert run(monkeypatch, *arguments) == 0
    assert run(monkeypatch, *arguments, '--strict') == 1


def test_images_and_labels_in_one_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / 'all', {'0.png': picture(0, kind='PNG'), '0_mask.png': mask([0, 1])})
    arguments = ['--images', 'all', '--labels', 'all', '--num-classes', '2', '--seg-map-suffix', '_mask.png']
    assert run(monkeypatch, *arguments) == 1  # the mask is taken for an image too
    assert '0_mask_mask.png' in Path('work_dirs/verify_dataset/all.txt').read_text()
    (tmp_path / 'all' / '0.png').rename(tmp_path / 'all' / '0.jpg')
    assert run(monkeypatch, *arguments) == 1
    assert "choose one with img_suffix='.jpg'" in capsys.readouterr().out
    assert run(monkeypatch, *arguments, '--img-suffix', '.jpg') == 0


def test_config_and_options(data, monkeypatch, capsys):
    for split in ('train', 'val'):
        files = {f'images/{split}/{i}.jpg': picture(i) for i in range(2)}
        files |= {f'annotations/{split}/{i}.png': mask([*range(11), 255]) for i in range(2)}
        write_folder(data / 'camvid', files)
    name = 'nepa_d192l6-p8_upernet_1xb8-bf16-500it_camvid-160x160'
    path = ROOT / 'configs' / 'segmentation' / f'{name}.py'
    keys = [f'{loader}.dataset.data_root={data}/camvid' for loader in ('train_dataloader', 'val_dataloader')]
    options = ['--splits', 'train', 'val', '--cfg-options', *keys]
    assert run(monkeypatch, path, *options) == 0
    assert 'val_dataloader: 2 samples, 0 bad files' in capsys.readouterr().out
    assert run(monkeypatch, path, *options, 'train_dataloader.dataset.reduce_zero_label=True') == 1
    out = capsys.readouterr().out
    assert 'change: train_dataloader.dataset.reduce_zero_label = False' in out
    assert 'val_dataloader: 2 samples, 0 bad files\n0 wrong' not in out
    assert Path(f'work_dirs/verify_dataset/{name}.txt').is_file()


def test_usage(data, monkeypatch, capsys):
    for arguments, message in (
        ([], 'name a config, or --images'),
        (['--images', data / 'images', '--labels', data / 'labels'], '--labels needs --num-classes'),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, *arguments)
        assert message in capsys.readouterr().err
    assert run(monkeypatch, 'none.py') == 1
    assert "config 'none.py' does not exist" in capsys.readouterr().err
    assert run(monkeypatch, '--images', data / 'none') == 1
    assert 'is not a folder' in capsys.readouterr().err
    Config(dict(default_scope='mmseg')).dump('empty.py')
    assert run(monkeypatch, 'empty.py') == 1
    assert 'has no data set in train, val, test' in capsys.readouterr().err


def test_help_is_quick():
    """Nothing heavy is imported for --help."""
    code = f"import runpy, sys; sys.argv = ['x', '--help']\ntry: runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
    code += "except SystemExit: assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0 and '--reduce-zero-label' in done.stdout, done.stderr
