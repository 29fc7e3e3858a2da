"""No image reader starts Ghostscript."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EPS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n'
READERS = """
import sys
from pathlib import Path
import PIL.Image
file = sys.argv[1]
data = Path(file).read_bytes()
from nepa_mm.datasets import preparation
from nepa_mm.apis.images import to_bgr
from nepa_mm.datasets import read_image
from nepa_mm.datasets.label_maps import read_label_map
seen = []
for name, read in dict(
    image=lambda: read_image(data, file),
    label=lambda: read_label_map(data, file),
    size=lambda: preparation.image_size(data),
    decoded=lambda: preparation.decode_label(data),
    pillow=lambda: to_bgr(PIL.Image.open(file)),
).items():
    try:
        read()
    except (ValueError, OSError):  # LabelError and UnreadableImage are such
        seen.append(name)
print(*seen)
"""


@pytest.mark.skipif(sys.platform == 'win32', reason='a script stands in for Ghostscript')
def test_no_reader_runs_postscript(tmp_path):
    """In a process of its own, since Pillow looks for Ghostscript once."""
    script, log, image = tmp_path / 'bin' / 'gs', tmp_path / 'ran', tmp_path / 'photo.jpg'
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> "{log}"\n')
    script.chmod(0o755)
    image.write_bytes(EPS)
    path = f'{script.parent}{os.pathsep}{os.environ["PATH"]}'
    environment = os.environ | dict(PATH=path, PYTHONPATH=str(ROOT))
    # The stand-in is found, where nothing forbids it.
    plain = f'from PIL import Image; Image.open({str(image)!r}).load()'
    subprocess.run([sys.executable, '-c', plain], env=environment, capture_output=True)
    assert log.exists()
    log.unlink()
    result = subprocess.run(
        [sys.executable, '-c', READERS, str(image)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.stdout.split() == ['image', 'label', 'size', 'decoded', 'pillow'], result.stderr
    assert not log.exists()
