"""Checkpoints that are not on this machine: what is fetched, where it lies, and what is said where it cannot be."""

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from nepa_mm.checkpoints import CheckpointError, fetch, load_weights, read_checkpoint, read_weights
from nepa_mm.checkpoints.sources import url_cache
from tests import golden
from tests.test_checkpoints import servers

REPO = 'SixAILab/nepa-base-patch14-224'
CASE = golden.CASES['pretrain_gelu_noaffine']['config']


def pth(value: float) -> bytes:
    stream = io.BytesIO()
    torch.save(dict(state_dict={'a': torch.full((100,), value)}), stream)
    return stream.getvalue()


# ---------------------------------------------------------------------- URLs

GOOD, OTHER = pth(1.0), pth(2.0)
HASHED = f'/runs/nepa-{hashlib.sha256(GOOD).hexdigest()[:8]}.pth'


def answer(path):
    files = {'/runs/a/epoch_1.pth': GOOD, '/runs/b/epoch_1.pth': OTHER, HASHED: GOOD, '/runs/nepa-00000000.pth': GOOD}
    files['/runs/nepa-20251224.pth'] = GOOD
    if path == '/runs/page.pth':
        return 200, {}, b'<!DOCTYPE html><html>Please log in</html>'
    if path == '/runs/short.pth':
        return 200, {'Content-Length': str(len(GOOD))}, GOOD[:-200]
    return (200, {}, files[path]) if path in files else (404, {}, b'')


@pytest.fixture
def web(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch_home'))
    with servers.serve(answer) as server:
        yield server


def kept(tmp_path) -> list[str]:
    """Files in the cache, but for its locks."""
    return sorted(path.name for path in tmp_path.rglob('*') if path.is_file() and path.suffix != '.lock')


def test_a_url_is_fetched_once(web, tmp_path):
    url = f'{web.url}/runs/a/epoch_1.pth'
    for _ in range(2):
        assert read_checkpoint(url)['state_dict']['a'][0] == 1
    assert web.asked == [('GET', '/runs/a/epoch_1.pth')]
    assert fetch(url) == url_cache(url) and url_cache(url).is_relative_to(tmp_path / 'torch_home')
    assert fetch(Path(url)) == url_cache(url), 'a Path keeps one of the slashes'


def test_urls_with_one_name_do_not_meet(web, tmp_path):
    assert read_checkpoint(f'{web.url}/runs/a/epoch_1.pth')['state_dict']['a'][0] == 1
    assert read_checkpoint(f'{web.url}/runs/b/epoch_1.pth')['state_dict']['a'][0] == 2
    assert kept(tmp_path) == ['epoch_1.pth'] * 2


def test_many_processes_fetch_it_once(web):
    url = f'{web.url}/runs/a/epoch_1.pth?download=1'
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(fetch, [url] * 4))
    assert len(paths) == 1 and paths.pop().name == 'epoch_1.pth'
    assert len(web.asked) == 1


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('/runs/short.pth', rf'broke off after {len(GOOD) - 200} of {len(GOOD)} bytes'),
        ('/runs/page.pth', 'page.pth is a web page or XML, not weights'),
        ('/runs/nepa-00000000.pth', 'its name says 00000000; the file was changed or damaged'),
        ('/runs/none.pth', r'could not be fetched \(HTTPError: HTTP Error 404'),
    ],
)
def test_a_bad_download_is_refused_and_not_kept(web, tmp_path, path, message):
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(web.url + path)
    assert kept(tmp_path) == []


def test_the_hash_in_a_name_is_checked(web):
    assert read_checkpoint(web.url + HASHED)['state_dict']['a'][0] == 1


def test_a_date_in_a_name_is_no_hash(web):
    assert read_checkpoint(f'{web.url}/runs/nepa-20251224.pth')['state_dict']['a'][0] == 1


def test_without_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    url = 'http://127.0.0.1:9/epoch_1.pth'  # nobody listens there
    with pytest.raises(CheckpointError, match='could not be fetched') as caught:
        read_checkpoint(url)
    assert 'checkpoint=FILE' in str(caught.value) and str(url_cache(url)) in str(caught.value)
    # What the message says works.
    url_cache(url).write_bytes(GOOD)
    assert read_checkpoint(url)['state_dict']['a'][0] == 1


def test_code_from_a_url_does_not_run(tmp_path, monkeypatch):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'ran'),)

    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    stream = io.BytesIO()
    torch.save(dict(state_dict={'a': torch.zeros(1)}, x=Payload()), stream)
    with (
        servers.serve(lambda path: (200, {}, stream.getvalue())) as server,
        pytest.raises(CheckpointError, match='could run code'),
    ):
        read_checkpoint(f'{server.url}/a.pth')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('path', ['s3://bucket/a.pth', 'open-mmlab://resnet50', 'file:///a.pth'])
def test_other_schemes_are_refused(path):
    with pytest.raises(CheckpointError, match='is no scheme that is read here'):
        read_checkpoint(path)


@pytest.mark.parametrize('path', ['', ' ', None])
def test_an_empty_path(path):
    with pytest.raises(CheckpointError, match='path is empty, so training would start from scratch unnoticed'):
        fetch(path)


# ---------------------------------------------------------------------- Hugging Face hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Two revisions of a repository, the first with EMA weights."""
    raw = golden.part(golden.tensors('pretrain_gelu_noaffine'), 'state.')
    stream = io.BytesIO()
    torch.save({k: v + 1 for k, v in raw.items()}, stream)
    files = {'model.safetensors': save(raw), 'pytorch_model_ema.bin': stream.getvalue(), 'config.json': b'{}'}
    old = {'model.safetensors': save({k: v - 1 for k, v in raw.items()})}
    with servers.serve(servers.hub({REPO: {'main': files, 'init': old, 'empty': {}}})) as server:
        servers.use_hub(monkeypatch, server.url, tmp_path / 'hub')
        server.cls_token = raw['vit_nepa.embeddings.cls_token']
        yield server


def load(reference, **kwargs):
    model = golden.build_backbone(CASE, causal=True)
    report = load_weights(model, reference, **kwargs)
    return model.cls_token.data, report


@pytest.mark.parametrize(
    ('reference', 'weights', 'shift'),
    [(f'hf://{REPO}', 'raw', 0), (f'hf://{REPO}', 'ema', 1), (f'hf://{REPO}@init', 'raw', -1)],
)
def test_a_repository_of_the_hub(hub, reference, weights, shift):
    cls_token, report = load(reference, weights=weights)
    assert torch.equal(cls_token, hub.cls_token + shift)
    assert report.source == f'{reference} ({weights} weights)'
    # Only what is needed is fetched, and only once.
    file = 'pytorch_model_ema.bin' if weights == 'ema' else 'model.safetensors'
    path = f'/{REPO}/resolve/{reference.partition("@")[2] or "main"}/{file}'
    load(reference, weights=weights)
    assert [p for method, p in hub.asked if method == 'GET' and '/resolve/' in p] == [path]


def test_init_cfg_takes_it(hub):
    pretrained = dict(type='Pretrained', checkpoint=f'hf://{REPO}', weights='ema')
    model = golden.build_backbone(CASE, causal=True, init_cfg=pretrained)
    model.init_weights()
    assert torch.equal(model.cls_token.data, hub.cls_token + 1)


def test_optional_files_are_fetched_where_there_are_any(hub):
    assert sorted(p.name for p in fetch(f'hf://{REPO}', optional=('config.json', 'none.json')).iterdir()) == [
        'config.json',
        'model.safetensors',
    ]


@pytest.mark.parametrize(
    ('reference', 'weights', 'message'),
    [
        (f'hf://{REPO}@v9', 'raw', "has no revision 'v9'"),
        (f'hf://{REPO}@empty', 'raw', 'has no file model.safetensors'),
        (f'hf://{REPO}@init', 'ema', "has no file pytorch_model_ema.bin .*use weights='raw'"),
        ('hf://SixAILab/none', 'raw', "has no repository 'SixAILab/none' that you may see"),
        ('hf://nepa-base', 'raw', 'expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION'),
        (f'hf://{REPO}/model.safetensors', 'raw', 'A single file of another name is reached by its URL'),
    ],
)
def test_what_the_hub_does_not_have(hub, reference, weights, message):
    with pytest.raises(CheckpointError, match=message):
        read_weights(reference, weights)


def test_without_network_the_hubs_cache_serves(hub, tmp_path, monkeypatch):
    load(f'hf://{REPO}')
    servers.use_hub(monkeypatch, 'http://127.0.0.1:9', tmp_path / 'hub')
    assert torch.equal(load(f'hf://{REPO}')[0], hub.cls_token)


def test_without_network_or_cache_the_error_says_what_to_fetch(tmp_path, monkeypatch):
    # Set by hand (HF_HUB_OFFLINE=1): the client itself tries a dead network for 20 seconds.
    servers.use_hub(monkeypatch, 'http://127.0.0.1:9', tmp_path / 'hub', offline=True)
    with pytest.raises(CheckpointError, match='the hub cannot be reached') as caught:
        read_checkpoint(f'hf://{REPO}@init')
    assert f'http://127.0.0.1:9/{REPO}/resolve/init/model.safetensors' in str(caught.value)
    assert 'name that directory: checkpoint=DIR' in str(caught.value)
