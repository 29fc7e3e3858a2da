"""The checked loader: what it loads, what it reports, what it refuses."""

import os
import struct
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import get_torch_safe_globals
from safetensors.torch import save_file

from nepa_mm.checkpoints import CheckpointError, load_state_dict, load_weights, read_checkpoint
from nepa_mm.models import NEPAViT
from tests import golden

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)


def build(**kwargs) -> NEPAViT:
    return NEPAViT(**(dict(arch=ARCH, patch_size=4) | kwargs))


def equal(model, weights):
    return all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.', 'module.backbone.'])
@pytest.mark.parametrize('wrapped', [True, False])
def test_finds_the_prefix(tmp_path, prefix, wrapped):
    source, model = build(), build()
    weights = {prefix + k: v for k, v in source.state_dict().items()} | {'head.fc.weight': torch.zeros(3, 16)}
    torch.save(dict(state_dict=weights, meta={}) if wrapped else weights, tmp_path / 'a.pth')
    report = load_weights(model, tmp_path / 'a.pth')
    assert equal(model, source.state_dict())
    assert set(report.matched) == set(model.state_dict())
    assert report.missing == report.reshaped == report.filled == []
    assert report.unexpected == ['head.fc.weight']
    assert str(report).startswith(f'Loaded {len(report.matched)} tensors from {tmp_path / "a.pth"}.')
    assert '1 of the checkpoint have no place in the model and were not used: head.fc.weight' in str(report)


def test_given_prefix(tmp_path):
    source, model = build(), build()
    torch.save({'student.' + k: v for k, v in source.state_dict().items()}, tmp_path / 'a.pth')
    for prefix in ('student.', 'student', 'module.student.'):
        model = build()
        load_weights(model, tmp_path / 'a.pth', prefix=prefix)
        assert equal(model, source.state_dict())
    with pytest.raises(CheckpointError, match=r"no key that starts with prefix='teacher.'.*\['student'\]"):
        load_weights(model, tmp_path / 'a.pth', prefix='teacher.')


@pytest.mark.parametrize('form', ['file', 'directory'])
def test_release_weights_and_qk_norm_filled_with_ones(tmp_path, form):
    case = golden.CASES['pretrain_gelu_noaffine']
    data = golden.tensors('pretrain_gelu_noaffine')
    save_file(golden.part(data, 'state.'), tmp_path / 'model.safetensors')
    model = golden.build_backbone(case['config'] | dict(qk_norm_affine=True), causal=True).eval()
    for layer in model.layers:
        torch.nn.init.zeros_(layer.attn.q_norm.weight)
    report = load_weights(model, tmp_path if form == 'directory' else tmp_path / 'model.safetensors')
    assert len(report.filled) == 6 and all('_norm.weight' in n for n in report.filled)
    assert '6 QK-norm weights are not in the checkpoint' in str(report)
    torch.testing.assert_close(
        model.predict_next(data['pixel_values'])[0], data['last_hidden_state'], atol=1e-5, rtol=0
    )


def test_release_weights_of_a_wrapped_model():
    data = golden.tensors('pretrain_gelu_noaffine')
    model = golden.build_backbone(golden.CASES['pretrain_gelu_noaffine']['config'], causal=True)
    report = load_state_dict(model, {'module.' + k: v for k, v in golden.part(data, 'state.').items()})
    assert len(report.matched) == len(model.state_dict())


def test_ema_file_of_a_release_directory(tmp_path):
    raw = golden.part(golden.tensors('pretrain_gelu_noaffine'), 'state.')
    save_file(raw, tmp_path / 'model.safetensors')
    model = golden.build_backbone(golden.CASES['pretrain_gelu_noaffine']['config'], causal=True)
    with pytest.raises(CheckpointError, match='has no pytorch_model_ema.bin'):
        load_weights(model, tmp_path, weights='ema')
    torch.save({k: v + 1 for k, v in raw.items()}, tmp_path / 'pytorch_model_ema.bin')
    report = load_weights(model, tmp_path, weights='ema')
    torch.testing.assert_close(model.cls_token.data, raw['vit_nepa.embeddings.cls_token'] + 1)
    assert '(ema weights)' in report.source
    load_weights(model, tmp_path)
    torch.testing.assert_close(model.cls_token.data, raw['vit_nepa.embeddings.cls_token'])
    with pytest.raises(CheckpointError, match="weights='average' is unknown"):
        load_weights(model, tmp_path, weights='average')


def test_release_classifier_into_image_classifier(tmp_path):
    case, data = golden.CASES['classify_bidirectional'], golden.tensors('classify_bidirectional')
    save_file(golden.part(data, 'state.'), tmp_path / 'model.safetensors')
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

    model = MMPRETRAIN_MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=golden.backbone_config(case['config'], causal=False, out_type='avg_featmap'),
            head=dict(type='NEPAClsHead', num_classes=7, in_channels=48),
        )
    ).eval()
    report = load_weights(model, tmp_path, strict=True)
    assert not report.missing
    torch.testing.assert_close(model(data['pixel_values']), data['logits'], atol=1e-5, rtol=0)


def test_a_head_of_another_class_count_is_counted_not_fatal():
    model = torch.nn.Module()
    model.backbone, model.head = build(), torch.nn.Linear(16, 5)
    before = model.head.weight.clone()
    weights = {'backbone.' + k: v for k, v in build().state_dict().items()}
    report = load_state_dict(model, weights | {'head.weight': torch.zeros(3, 16), 'head.bias': torch.zeros(3)})
    assert report.reshaped == ['head.weight', 'head.bias']
    assert torch.equal(model.head.weight, before)
    with pytest.raises(CheckpointError, match='every weight is needed here'):
        load_state_dict(model, weights, strict=True)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch=ARCH | dict(num_layers=3)), r'missing from the checkpoint: layers\.2\.'),
        (dict(arch=ARCH | dict(num_layers=1)), r'of the checkpoint have no place in it: layers\.1\.'),
        (dict(patch_size=2), r'patch_embed.proj.weight \(16, 3, 4, 4\) for \(16, 3, 2, 2\)'),
        (dict(mlp='swiglu'), 'mlp.fc1_g'),
        (dict(arch=ARCH | dict(embed_dims=32)), 'another shape'),
        (dict(layer_scale_init=None), 'gamma_1'),
    ],
)
def test_another_backbone_is_refused_and_left_alone(kwargs, message):
    model = build(**kwargs)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_state_dict(model, build().state_dict())
    assert equal(model, before)


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_a_patch_embedding_is_resampled_on_demand(tmp_path, prefix):
    source, model = build(patch_size=4), build(patch_size=8)
    torch.nn.init.normal_(source.patch_embed.proj.bias)
    torch.save({prefix + k: v for k, v in source.state_dict().items()}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='only the patch size differs, resample_patch_embed=True'):
        load_weights(model, tmp_path / 'a.pth')
    report = load_weights(model, tmp_path / 'a.pth', strict=True, resample_patch_embed=True)
    assert report.resampled == ['patch_embed.proj.weight'] and report.reshaped == report.missing == []
    assert len(report.matched) == len(model.state_dict()) - 1
    assert '1 had another patch size and were resampled: patch_embed.proj.weight' in str(report)
    # One patch, small and twice as large: the same embedding.
    small = torch.rand(2, 3, 4, 4)
    large = torch.nn.functional.interpolate(small, (8, 8), mode='bicubic', antialias=True)
    torch.testing.assert_close(model.embed(large)[0], source.embed(small)[0], atol=1e-5, rtol=0)


def test_resampling_changes_nothing_else(tmp_path):
    """Neither a patch embedding that fits, nor one of another width or of other channels."""
    source, model = build(), build()
    report = load_state_dict(model, source.state_dict(), resample_patch_embed=True)
    assert report.resampled == [] and equal(model, source.state_dict())
    for other in (build(patch_size=2, in_channels=4), build(patch_size=2, arch=ARCH | dict(embed_dims=32))):
        with pytest.raises(CheckpointError, match='patch_embed.proj.weight') as caught:
            load_state_dict(other, source.state_dict(), resample_patch_embed=True)
        assert 'resample_patch_embed' not in str(caught.value)


def test_init_cfg_resamples(tmp_path):
    torch.save({'backbone.' + k: v for k, v in build(patch_size=4).state_dict().items()}, tmp_path / 'a.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    with pytest.raises(CheckpointError, match='does not fit the backbone'):
        build(patch_size=8, init_cfg=pretrained).init_weights()
    model = build(patch_size=8, init_cfg=pretrained | dict(resample_patch_embed=True))
    model.init_weights()
    expected = build(patch_size=8)
    load_weights(expected, tmp_path / 'a.pth', resample_patch_embed=True)
    assert equal(model, expected.state_dict())


def test_affine_qk_norm_does_not_vanish_into_a_plain_model():
    with pytest.raises(CheckpointError, match='attn.q_norm.weight'):
        load_state_dict(build(qk_norm='plain'), build(qk_norm='affine').state_dict())


def test_mask_token_and_an_unused_final_norm_are_optional():
    report = load_state_dict(build(final_norm=False), build(mask_ratio=0.5).state_dict())
    assert set(report.unexpected) == {'mask_token', 'norm.weight', 'norm.bias'}
    assert load_state_dict(build(mask_ratio=0.5), build().state_dict()).missing == ['mask_token']


def test_a_missing_final_norm_is_not():
    with pytest.raises(CheckpointError, match='missing from the checkpoint: norm.weight, norm.bias'):
        load_state_dict(build(), build(final_norm=False).state_dict())


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_of_a_diverged_run_are_refused(value):
    model = build()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    weights = build().state_dict()
    weights['norm.weight'][0] = value
    with pytest.raises(CheckpointError, match=r'NaN or infinite values in 1 tensors \(norm.weight\)'):
        load_state_dict(model, weights)
    assert equal(model, before)


def test_a_mask_of_infinities_is_no_divergence():
    def masked(*values):
        module = build()
        module.register_buffer('mask', torch.tensor(values))
        return module

    inf = float('inf')
    model = masked(0.0, -inf)
    assert load_state_dict(model, masked(0.0, -inf).state_dict()).matched
    assert model.mask.tolist() == [0, -inf]
    with pytest.raises(CheckpointError, match=r'NaN or infinite values in 1 tensors \(mask\)'):
        load_state_dict(masked(0.0, 1.0), model.state_dict())


def test_nothing_in_common_is_refused():
    with pytest.raises(CheckpointError, match='Nothing of resnet.pth fits.*train from scratch unnoticed'):
        load_state_dict(build(), {'conv1.weight': torch.zeros(1)}, source='resnet.pth')


def test_init_cfg_goes_through_it(tmp_path):
    source = build()
    torch.save(dict(state_dict={'backbone.' + k: v for k, v in source.state_dict().items()}), tmp_path / 'a.pth')
    cfg = dict(type='NEPAViT', arch=ARCH, patch_size=4)
    model = MODELS.build(cfg | dict(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))))
    model.init_weights()
    assert equal(model, source.state_dict())
    for checkpoint, message in (('', 'path is empty'), (str(tmp_path / 'b.pth'), 'b.pth does not exist')):
        model = MODELS.build(cfg | dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint)))
        with pytest.raises(CheckpointError, match=message):
            model.init_weights()


@pytest.mark.parametrize(
    ('init_cfg', 'message'),
    [
        (dict(type='Pretrained'), 'needs checkpoint='),
        (dict(type='Pretrained', checkpoint='a.pth', prefx='backbone.'), r"not \['prefx'\]"),
        (['a.pth'], 'is no dict with a type'),
    ],
)
def test_wrong_init_cfg(init_cfg, message):
    with pytest.raises(CheckpointError, match=message):
        build(init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize('weights', ['raw', 'ema'])
def test_raw_or_ema(tmp_path, weights):
    """EMAHook of mmengine saves the average as state_dict and the raw weights beside it."""
    raw, ema, model = build(), build(), build()
    checkpoint = dict(
        state_dict={'backbone.' + k: v for k, v in ema.state_dict().items()},
        ema_state_dict={'steps': torch.tensor(7)} | {'module.backbone.' + k: v for k, v in raw.state_dict().items()},
    )
    torch.save(checkpoint, tmp_path / 'a.pth')
    report = load_weights(model, tmp_path / 'a.pth', weights=weights)
    assert equal(model, (raw if weights == 'raw' else ema).state_dict())
    assert f'({weights} weights)' in report.source and not report.unexpected


def test_ema_where_there_is_none(tmp_path):
    torch.save(build().state_dict(), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='holds no EMA weights'):
        load_weights(build(), tmp_path / 'a.pth', weights='ema')
    with pytest.raises(CheckpointError, match="weights='average' is unknown"):
        load_weights(build(), tmp_path / 'a.pth', weights='average')


# ---------------------------------------------------------------------- files that are no good


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', r'is empty \(0 bytes\)'),
        (b'<!DOCTYPE html><html>Not found</html>', 'is a web page'),
        (b'\n  <html>', 'is a web page'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n', 'is a pointer of Git LFS'),
        (b'Just some text, long enough to be read.', 'damaged'),
        ([1, 2], 'holds a list'),
        (dict(epoch=3), 'holds no weights'),
        (dict(state_dict={}), 'holds no weights'),
    ],
)
def test_files_that_hold_no_weights(tmp_path, content, message):
    path = tmp_path / 'a.pth'
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_truncated(tmp_path, suffix):
    path = tmp_path / f'a.{suffix}'
    torch.save(build().state_dict(), path) if suffix == 'pth' else save_file(build().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match='damaged or cut short'):
        read_checkpoint(path)


class _Payload:
    def __init__(self, call, *args, state=None):
        self.call = (call, args) if state is None else (call, args, state)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('how', ['system', 'getattr'])
@pytest.mark.parametrize('zipped', [True, False])
def test_a_pickle_cannot_run_code(tmp_path, how, zipped):
    """Also not through `getattr`, which mmengine's own list of safe functions holds."""
    trace = tmp_path / 'trace'
    payload = _Payload(os.system, f'touch {trace}') if how == 'system' else _Payload(getattr, HistoryBuffer, '__init__')
    torch.save(
        dict(state_dict={'a': torch.zeros(1)}, x=payload),
        tmp_path / 'a.pth',
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(
        CheckpointError, match='Python objects other than weights; reading those could run code'
    ) as caught:
        read_checkpoint(tmp_path / 'a.pth')
    assert 'weights_only' not in str(caught.value), "torch's advice to load unsafely is not ours"
    assert not trace.exists()


POINTER = struct.pack('<Q', 0x4141414141414141)


def _evil(kind):
    """Objects at an address of the file's choice; and the ways to them, and to what holds for the whole process."""
    objects = _Payload(np.ndarray, (1,), _Payload(np.dtype, 'O', False, True), bytearray(POINTER))
    numbers = _Payload(np.dtype, 'f8', False, True)
    reconstruct, scalar = np.arange(1).__reduce__()[0], np.float64(1).__reduce__()[0]
    fields = (3, '<', None, ('f',), {'f': (numbers, 0)}, 8, 1, 0)
    history = HistoryBuffer([1.0], [1])
    history._log_history = [1.0]
    return {
        'objects': objects,
        'objects in a history': _Payload(HistoryBuffer, [objects], [1.0]),
        'any memory': _Payload(np.ndarray, (1,), numbers, bytearray(POINTER), 0, (1 << 40,)),
        'hidden fields': _Payload(np.dtype, 'V8', False, True, state=(3, '|', *fields[2:])),
        'fields in a number': _Payload(np.dtype, 'f8', False, True, state=fields),
        'larger than its data': _Payload(reconstruct, np.ndarray, (0,), b'b', state=(1, (9,), numbers, False, POINTER)),
        'scalar of objects': _Payload(scalar, np.dtype('O'), POINTER),
        'array of objects': np.array([None]),
        'called history': _Payload(HistoryBuffer, [1.0], [1]),
        'history of lists': history,
    }[kind]


@pytest.mark.parametrize(
    'kind',
    [
        'objects',
        'objects in a history',
        'any memory',
        'hidden fields',
        'fields in a number',
        'larger than its data',
        'scalar of objects',
        'array of objects',
        'called history',
        'history of lists',
    ],
)
@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('allowed', [False, True])
def test_a_pickle_cannot_choose_memory(tmp_path, kind, zipped, allowed):
    """Refused while it is read; also where others have allowed numpy's own in this process."""
    content = dict(state_dict={'a': torch.zeros(1)}, x=_evil(kind))
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
    before = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals(get_torch_safe_globals() if allowed else []):
        inside = set(torch.serialization.get_safe_globals())
        with pytest.raises(CheckpointError, match='reading those could run code .Unsupported'):
            read_checkpoint(tmp_path / 'a.pth')
        assert set(torch.serialization.get_safe_globals()) == inside
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_history_brings_no_statistics_of_its_own(tmp_path):
    """Statistics that mmengine would use them for all histories of the process."""
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    buffer.statistics = 'shadowed'
    known = dict(HistoryBuffer._statistics_methods)
    HistoryBuffer._statistics_methods['mean'] = HistoryBuffer.max
    try:
        torch.save(dict(state_dict={'a': torch.zeros(1)}, log=buffer), tmp_path / 'a.pth')
    finally:
        HistoryBuffer._statistics_methods.update(known)
    found = read_checkpoint(tmp_path / 'a.pth')['log']
    assert type(found) is HistoryBuffer and found.statistics('mean') == 1.5
    assert HistoryBuffer._statistics_methods == known


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('module', ['numpy._core', 'numpy.core'])
def test_records_come_back_equal(tmp_path, zipped, module):
    """Histories, numpy's numbers and arrays, of either numpy, wherever they stand."""
    hub = MessageHub('records')
    for i in range(5):
        hub.update_scalar('train/loss', 1.5 * i, 2)
    hub.update_info('best', np.float32(0.25))
    hub.update_info('deep', [(1, {'x': np.arange(6, dtype='>i2').reshape(2, 3)}), np.array(['a', 'bc'])])
    versions = OrderedDict(a=torch.zeros(1))
    versions._metadata = dict(sizes=np.array([1, 2]))
    tensor = torch.zeros(2)
    tensor.note = np.array([3.0])
    array = np.asfortranarray(np.arange(4.0).reshape(2, 2))
    content = dict(state_dict=versions, message_hub=hub.state_dict(), arrays=[array, array], t=tensor, s=slice(1, 2))
    content['none'] = HistoryBuffer()
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
    written = np.arange(1).__reduce__()[0].__module__.removesuffix('.multiarray')
    if module != written and not zipped:
        data = (tmp_path / 'a.pth').read_bytes()
        (tmp_path / 'a.pth').write_bytes(data.replace(f'c{written}.'.encode(), f'c{module}.'.encode()))
    found = read_checkpoint(tmp_path / 'a.pth')
    scalars, info = found['message_hub']['log_scalars'], found['message_hub']['runtime_info']
    history = scalars['train/loss']
    for one, other in zip(history.data, hub.log_scalars['train/loss'].data, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    assert type(history) is HistoryBuffer and vars(history).keys() == {'max_length', '_log_history', '_count_history'}
    assert history.max_length == 1_000_000 and history.mean() == 1.5 and len(found['none'].data[0]) == 0
    history.update(9.0)
    assert history.current() == 9.0
    assert type(info['best']) is np.float32 and info['best'] == 0.25
    np.testing.assert_array_equal(info['deep'][0][1]['x'], np.arange(6).reshape(2, 3))
    assert info['deep'][0][1]['x'].dtype == np.int16 and info['deep'][1].tolist() == ['a', 'bc']
    assert type(info['deep'][0]) is tuple and found['s'] == slice(1, 2)
    assert found['arrays'][0] is found['arrays'][1] and type(found['arrays'][0]) is np.ndarray
    assert found['arrays'][0].flags.f_contiguous and found['arrays'][0].tolist() == array.tolist()
    assert type(found['state_dict']._metadata['sizes']) is np.ndarray
    assert type(found['t'].note) is np.ndarray
    MessageHub('resumed').load_state_dict(found['message_hub'])


def test_a_runs_own_records_are_readable(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save(
        dict(state_dict={'a': torch.zeros(1)}, message_hub=dict(log=buffer, lr=np.float64(0.5))), tmp_path / 'a.pth'
    )
    hub = read_checkpoint(tmp_path / 'a.pth')['message_hub']
    assert hub['log'].mean() == 1.5 and hub['log'].statistics('max') == 2.0 and hub['lr'] == 0.5


@pytest.mark.parametrize('kind', ['bool', 'int8', 'int32', 'int64', 'uint8', 'float16', 'float32', 'float64'])
def test_a_score_of_any_numpy_kind_is_readable(kind, tmp_path):
    """`save_best` records what a metric returned: mmseg's mIoU is a float32."""
    score = np.dtype(kind).type(1)
    torch.save(
        dict(state_dict={'a': torch.zeros(1)}, message_hub=dict(runtime_info=dict(best_score=score))),
        tmp_path / 'a.pth',
    )
    assert read_checkpoint(tmp_path / 'a.pth')['message_hub']['runtime_info']['best_score'] == score


def test_directory_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match='directory without model.safetensors'):
        read_checkpoint(tmp_path)
