"""The converters between the release's format and ours, as users start them."""

import hashlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from safetensors.torch import load_file, save_file

from nepa_mm.checkpoints import load_weights, read_checkpoint, read_weights, to_release
from nepa_mm.models import NEPAViT
from tests import golden
from tests.test_checkpoints import servers

TOOLS = Path(__file__).resolve().parents[2] / 'tools' / 'model_converters'
PREPROCESSOR = dict(do_resize=True, size=dict(height=56, width=56), resample=2, image_mean=[0.5] * 3)


@pytest.fixture
def tool(monkeypatch, capsys):
    """Call a tool's main() here; what it prints."""

    def call(name, *words):
        spec = importlib.util.spec_from_file_location(name, TOOLS / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [name, *map(str, words)])
        module.main()
        return capsys.readouterr().out

    return call


def make_release(folder: Path, name: str, ema: bool = False, fused: bool = False, **changes) -> dict:
    """A release directory of a golden case; its weights."""
    folder.mkdir(exist_ok=True)
    weights = golden.part(golden.tensors(name), 'state.')
    if fused:
        weights = fuse(weights)
    save_file(weights, folder / 'model.safetensors')
    (folder / 'config.json').write_text(json.dumps(golden.CASES[name]['config'] | changes))
    (folder / 'preprocessor_config.json').write_text(json.dumps(PREPROCESSOR))
    if ema:
        torch.save({k: v * 1.5 for k, v in weights.items()}, folder / 'pytorch_model_ema.bin')
    return weights


def fuse(weights: dict) -> dict:
    fused = {k: v for k, v in weights.items() if '.query.' not in k and '.key.' not in k and '.value.' not in k}
    for key in (k for k in weights if '.query.' in k):
        parts = [weights[key.replace('.query.', f'.{part}.')] for part in ('query', 'key', 'value')]
        fused[key.replace('.query.', '.qkv.')] = torch.cat(parts)
    return fused


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def backbone_printed(out: str) -> dict:
    return eval(re.search(r'^backbone = (dict\(.*\))$', out, re.MULTILINE)[1])  # our own print


@pytest.mark.parametrize('name', list(golden.CASES))
@pytest.mark.parametrize('ema', [False, True])
@pytest.mark.parametrize('fused', [False, True])
def test_round_trip_from_the_release_is_bit_exact(tool, tmp_path, name, ema, fused):
    weights = make_release(tmp_path / 'src', name, ema, fused, a_later_key=3, model_type='vit_nepa')
    out = tool('release_to_nepa_mm', tmp_path / 'src', tmp_path / 'a.pth')
    assert 'Keys of config.json that were not looked at: a_later_key' in out
    tool('nepa_mm_to_release', tmp_path / 'a.pth', tmp_path / 'dst')
    assert same(load_file(tmp_path / 'dst/model.safetensors'), weights)
    for file in ('config.json', 'preprocessor_config.json'):
        assert json.loads((tmp_path / 'dst' / file).read_text()) == json.loads((tmp_path / 'src' / file).read_text())
    assert (tmp_path / 'dst/pytorch_model_ema.bin').is_file() == ema
    if ema:
        average = read_checkpoint(tmp_path / 'dst/pytorch_model_ema.bin')['state_dict']
        assert same(average, {k: v * 1.5 for k, v in weights.items()})
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.pth', 'dst', 'src'], 'nothing is left behind'


@pytest.mark.parametrize('name', golden.PRETRAIN_CASES)
@pytest.mark.parametrize('weights', ['raw', 'ema'])
def test_what_is_printed_is_the_model(tool, tmp_path, name, weights):
    """Of which the loader finds either set of weights."""
    make_release(tmp_path / 'src', name, ema=True)
    backbone = backbone_printed(tool('release_to_nepa_mm', tmp_path / 'src', tmp_path / 'a.pth'))
    # Nothing of causal: pretraining is, its transfer is not.
    assert backbone | dict(causal=True) == golden.backbone_config(golden.CASES[name]['config'], causal=True)
    model = MODELS.build(backbone | dict(causal=True)).eval()
    load_weights(model, tmp_path / 'a.pth', weights=weights)
    data = golden.tensors(name)
    prediction = model.predict_next(data['pixel_values'])[0]
    agrees = torch.allclose(prediction, data['last_hidden_state'], atol=1e-5)
    assert agrees == (weights == 'raw')


def test_a_classifier_computes_the_releases_logits(tool, tmp_path):
    labels = {str(i): name for i, name in enumerate(['tench', 'goldfish', 'shark', 'ray', 'cock', 'hen', 'ostrich'])}
    make_release(tmp_path / 'src', 'classify_bidirectional', id2label=labels)
    out = tool('release_to_nepa_mm', tmp_path / 'src', tmp_path / 'a.pth')
    backbone = backbone_printed(out)
    assert (backbone['causal'], backbone['out_type']) == (False, 'avg_featmap')
    assert "head = dict(type='NEPAClsHead', num_classes=7, in_channels=48)" in out
    head = dict(type='NEPAClsHead', num_classes=7, in_channels=48)
    model = MMPRETRAIN_MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head)).eval()
    load_weights(model, tmp_path / 'a.pth', strict=True)
    data = golden.tensors('classify_bidirectional')
    torch.testing.assert_close(model(data['pixel_values']), data['logits'], atol=1e-5, rtol=0)
    assert read_checkpoint(tmp_path / 'a.pth')['meta']['dataset_meta'] == dict(classes=list(labels.values()))


def test_a_file_with_its_config_named(tool, tmp_path):
    make_release(tmp_path / 'src', 'pretrain_swiglu')
    (tmp_path / 'src/model.safetensors').rename(tmp_path / 'weights.safetensors')
    with pytest.raises(SystemExit, match='config.json does not exist. The weights alone do not tell heads'):
        tool('release_to_nepa_mm', tmp_path / 'weights.safetensors', tmp_path / 'a.pth')
    words = ['--config', tmp_path / 'src/config.json']
    assert "mlp='swiglu'" in tool('release_to_nepa_mm', tmp_path / 'weights.safetensors', tmp_path / 'a.pth', *words)


def test_from_the_hub(tool, tmp_path, monkeypatch):
    weights = make_release(tmp_path / 'src', 'pretrain_gelu_noaffine', ema=True)
    files = {path.name: path.read_bytes() for path in (tmp_path / 'src').iterdir()}
    with servers.serve(servers.hub({'SixAILab/nepa': {'v1': files}})) as server:
        servers.use_hub(monkeypatch, server.url, tmp_path / 'hub')
        tool('release_to_nepa_mm', 'hf://SixAILab/nepa@v1', tmp_path / 'a.pth')
    tool('nepa_mm_to_release', tmp_path / 'a.pth', tmp_path / 'dst')
    assert same(load_file(tmp_path / 'dst/model.safetensors'), weights)
    assert (tmp_path / 'dst/pytorch_model_ema.bin').is_file()


@pytest.mark.parametrize('name', ['pretrain_gelu_affine', 'pretrain_swiglu'])
def test_folded_layer_scale_computes_the_same(tool, tmp_path, name):
    make_release(tmp_path / 'src', name)
    # At 1e-5 nobody would notice a missing branch.
    weights = load_file(tmp_path / 'src/model.safetensors')
    weights = {k: torch.rand_like(v) if 'lambda1' in k else v for k, v in weights.items()}
    save_file(weights, tmp_path / 'src/model.safetensors')
    models = []
    for words in ([], ['--fold-layer-scale']):
        path = tmp_path / f'{len(words)}.pth'
        backbone = backbone_printed(tool('release_to_nepa_mm', tmp_path / 'src', path, *words))
        models.append(MODELS.build(backbone).eval())
        load_weights(models[-1], path, strict=True)
    images = golden.tensors(name)['pixel_values']
    assert not any('gamma' in key for key in models[1].state_dict())
    torch.testing.assert_close(models[1](images)[0], models[0](images)[0], atol=1e-6, rtol=1e-6)
    # On the way back the release gets what multiplies by nothing, which folds away again.
    out = tool('nepa_mm_to_release', tmp_path / '1.pth', tmp_path / 'dst')
    assert 'The release always has LayerScale: it was written as ones.' in out
    assert json.loads((tmp_path / 'dst/config.json').read_text())['layerscale_value'] == 1.0
    tool('release_to_nepa_mm', tmp_path / 'dst', tmp_path / 'again.pth', '--fold-layer-scale')
    assert same(
        read_checkpoint(tmp_path / 'again.pth')['state_dict'], read_checkpoint(tmp_path / '1.pth')['state_dict']
    )


@pytest.mark.parametrize('way', ['there', 'back'])
def test_patch_and_image_size_change(tool, tmp_path, way):
    make_release(tmp_path / 'src', 'pretrain_gelu_affine')
    words = ['--patch-size', '16', '--image-size', '64']
    tool('release_to_nepa_mm', tmp_path / 'src', tmp_path / 'a.pth', *(words if way == 'there' else []))
    tool('nepa_mm_to_release', tmp_path / 'a.pth', tmp_path / 'dst', *(words if way == 'back' else []))
    config = json.loads((tmp_path / 'dst/config.json').read_text())
    assert (config['patch_size'], config['image_size']) == (16, 64)
    key = 'vit_nepa.embeddings.patch_embeddings.projection.weight'
    before, after = (load_file(tmp_path / name / 'model.safetensors') for name in ('src', 'dst'))
    assert after[key].shape == (48, 3, 16, 16)
    assert same({k: v for k, v in after.items() if k != key}, {k: v for k, v in before.items() if k != key})
    small = torch.rand(1, 3, 14, 14)
    large = torch.nn.functional.interpolate(small, (16, 16), mode='bicubic', antialias=True)
    embedded = [torch.nn.functional.conv2d(x, w[key]) for x, w in ((small, before), (large, after))]
    torch.testing.assert_close(embedded[1], embedded[0], atol=1e-4, rtol=0)
    size = json.loads((tmp_path / 'dst/preprocessor_config.json').read_text())['size']
    assert size == (PREPROCESSOR['size'] if way == 'there' else dict(height=64, width=64))


def test_a_size_of_no_whole_patches_is_refused(tool, tmp_path):
    make_release(tmp_path / 'src', 'pretrain_gelu_affine')
    with pytest.raises(SystemExit, match='Images of 56 are not whole patches of 16; give an --image-size'):
        tool('release_to_nepa_mm', tmp_path / 'src', tmp_path / 'a.pth', '--patch-size', '16')
    assert not (tmp_path / 'a.pth').exists()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(use_gated_mlp=True, hidden_act='gelu'), r"a gated MLP with hidden_act='gelu' \(GEGLU or another\)"),
        (dict(hidden_act='relu'), "an MLP with hidden_act='relu'; NEPAViT has gelu, or a gate with silu"),
        (dict(qk_norm_bias=True), 'QK-norm with a bias'),
        (dict(layer_norm_eps=1e-6), 'layer_norm_eps=1e-06; NEPAViT has 1e-12'),
        (dict(num_hidden_layers=4), 'does not fit the backbone; it was made with another one'),
        (dict(hidden_size=96), 'does not fit the backbone'),
    ],
)
def test_what_nepa_vit_is_not_is_refused(tool, tmp_path, changes, message):
    make_release(tmp_path / 'src', 'pretrain_gelu_affine', **changes)
    with pytest.raises(SystemExit, match=message):
        tool('release_to_nepa_mm', tmp_path / 'src', tmp_path / 'a.pth')
    assert [p.name for p in tmp_path.iterdir()] == ['src'], 'nothing is left behind'


def test_other_mistakes_are_named(tool, tmp_path):
    weights = make_release(tmp_path / 'src', 'pretrain_gelu_affine', ema=True)
    config = golden.CASES['pretrain_gelu_affine']['config']
    (tmp_path / 'a.pth').touch()
    with pytest.raises(SystemExit, match='a.pth exists; pass --force to replace it'):
        tool('release_to_nepa_mm', tmp_path / 'src', tmp_path / 'a.pth')
    tool('release_to_nepa_mm', tmp_path / 'src', tmp_path / 'a.pth', '--force')
    (tmp_path / 'dst').mkdir()
    (tmp_path / 'dst/notes.txt').touch()
    with pytest.raises(SystemExit, match='dst exists and is not empty; pass --force'):
        tool('nepa_mm_to_release', tmp_path / 'a.pth', tmp_path / 'dst')
    tool('nepa_mm_to_release', tmp_path / 'a.pth', tmp_path / 'dst', '--force')
    tool('nepa_mm_to_release', tmp_path / 'a.pth', tmp_path / 'dst', '--force', '--weights', 'ema')
    assert (tmp_path / 'dst/notes.txt').exists()
    assert not (tmp_path / 'dst/pytorch_model_ema.bin').exists(), 'no average of other weights stays beside them'
    assert torch.equal(
        load_file(tmp_path / 'dst/model.safetensors')['vit_nepa.layernorm.weight'],
        weights['vit_nepa.layernorm.weight'] * 1.5,
    )

    for content, message in (
        ('no JSON', 'config.json is no JSON'),
        (json.dumps({k: v for k, v in config.items() if k != 'rope_theta'}), 'config.json has no rope_theta'),
    ):
        (tmp_path / 'src/config.json').write_text(content)
        with pytest.raises(SystemExit, match=message):
            tool('release_to_nepa_mm', tmp_path / 'src', tmp_path / 'b.pth')
    torch.save({'conv1.weight': torch.zeros(1)}, tmp_path / 'src/pytorch_model_ema.bin')
    with pytest.raises(SystemExit, match="is not in the release's format"):
        tool('release_to_nepa_mm', tmp_path / 'src', tmp_path / 'b.pth')
    (tmp_path / 'src/pytorch_model_ema.bin').unlink()
    (tmp_path / 'src/config.json').write_text(json.dumps(config))
    save_file({k: v for k, v in weights.items() if 'patch_embed' not in k}, tmp_path / 'src/model.safetensors')
    with pytest.raises(SystemExit, match='The weights have no patch embedding'):
        tool('release_to_nepa_mm', tmp_path / 'src', tmp_path / 'b.pth')
    save_file(weights | {'vit_nepa.embeddings.position': torch.zeros(1)}, tmp_path / 'src/model.safetensors')
    with pytest.raises(SystemExit, match='is not what nepa_mm can build. Unknown keys: vit_nepa.embeddings.position'):
        tool('release_to_nepa_mm', tmp_path / 'src', tmp_path / 'b.pth')


# ---------------------------------------------------------------------- from runs of our own


ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
RUN_CONFIG = """
model = dict(
    type='{kind}',
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[51.0, 51.0, 51.0]),
    backbone=dict(
        type='NEPAViT', arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32), patch_size=4,
        qk_norm='{qk_norm}', mlp='{mlp}', layer_scale_init={layer_scale}, out_type='{out_type}', {more}))
train_cfg = dict(by_epoch=True, max_epochs=float('inf'))
"""


def save_run(path: Path, kind='NEPA', head=(), ema=False, **backbone) -> dict:
    """What a run would save, with the text of its config; its weights."""
    settings = dict(qk_norm='plain', mlp='gelu', layer_scale=1e-5, out_type='featmap', more='') | backbone
    model = NEPAViT(
        arch=ARCH,
        patch_size=4,
        qk_norm=settings['qk_norm'],
        mlp=settings['mlp'],
        layer_scale_init=settings['layer_scale'],
    )
    weights = {f'backbone.{k}': torch.rand_like(v) for k, v in model.state_dict().items()}
    weights |= {name: torch.rand(shape) for name, shape in head}
    meta = dict(cfg=RUN_CONFIG.format(kind=kind, **settings), dataset_meta=dict(classes=('cat', 'dog', 'owl')))
    checkpoint = dict(meta=meta, state_dict=weights, optimizer=dict(state={}), message_hub=dict())
    if ema:
        checkpoint |= dict(
            state_dict={k: v + 1 for k, v in weights.items()},
            ema_state_dict={'steps': torch.tensor(3)} | {f'module.{k}': v for k, v in weights.items()},
        )
    torch.save(checkpoint, path)
    return weights


HEAD = [('head.fc_norm.weight', 16), ('head.fc_norm.bias', 16), ('head.fc.weight', (3, 16)), ('head.fc.bias', 3)]


@pytest.mark.parametrize('ema', [False, True])
@pytest.mark.parametrize(
    'run',
    [
        dict(),
        dict(qk_norm='affine', mlp='swiglu'),
        dict(qk_norm='none', layer_scale=0.1),
        dict(kind='ImageClassifier', out_type='avg_featmap', head=HEAD),
        dict(kind='ImageClassifier', out_type='avg_featmap', head=HEAD, more='causal=True'),
    ],
)
def test_round_trip_of_a_run_is_bit_exact(tool, tmp_path, run, ema):
    weights = save_run(tmp_path / 'a.pth', ema=ema, **run)
    tool('nepa_mm_to_release', tmp_path / 'a.pth', tmp_path / 'release')
    config = json.loads((tmp_path / 'release/config.json').read_text())
    expected = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, patch_size=4)
    expected |= dict(image_size=64, layer_norm_eps=1e-12, rope_theta=100.0, pos_embed_rescale=2.0)
    expected |= dict(qk_norm=run.get('qk_norm') != 'none', qk_norm_affine=run.get('qk_norm') == 'affine')
    expected |= dict(layerscale_value=run.get('layer_scale', 1e-5))
    if 'mlp' in run:
        expected |= dict(use_gated_mlp=True, hidden_act='silu')
    if 'head' in run:
        expected |= dict(num_labels=3, is_causal='more' in run, id2label={'0': 'cat', '1': 'dog', '2': 'owl'})
    assert config == config | expected
    preprocessor = json.loads((tmp_path / 'release/preprocessor_config.json').read_text())
    assert (preprocessor['image_mean'], preprocessor['image_std']) == ([0.5] * 3, [0.2] * 3)
    assert preprocessor['size'] == dict(height=64, width=64)

    tool('release_to_nepa_mm', tmp_path / 'release', tmp_path / 'b.pth')
    back, _ = read_weights(tmp_path / 'b.pth', 'raw')
    assert same({k.removeprefix('module.'): v for k, v in back['state_dict'].items()}, weights)
    if ema:
        assert same(read_weights(tmp_path / 'b.pth', 'ema')[0]['state_dict'], {k: v + 1 for k, v in weights.items()})
    backbone = back['meta']['backbone']
    assert backbone.get('causal', False) == ('more' in run)
    assert backbone['qk_norm'] == run.get('qk_norm', 'plain')


def test_fused_query_key_value_on_demand(tool, tmp_path):
    weights = save_run(tmp_path / 'a.pth')
    tool('nepa_mm_to_release', tmp_path / 'a.pth', tmp_path / 'release', '--fuse-qkv')
    written = load_file(tmp_path / 'release/model.safetensors')
    assert same(written, to_release(weights, fused_qkv=True))
    key = 'vit_nepa.encoder.layer.1.attention.attention.qkv.weight'
    assert torch.equal(written[key], weights['backbone.layers.1.attn.qkv.weight'])


@pytest.mark.parametrize(
    ('run', 'message'),
    [
        (dict(kind='ImageClassifier', head=HEAD[2:], out_type='avg_featmap'), 'the head of NEPAClsHead with its norm'),
        (dict(kind='ImageClassifier', head=HEAD, out_type='last_token'), "takes out_type='last_token'; that of the"),
        (
            dict(kind='EncoderDecoder', head=[('decode_head.conv_seg.weight', 3)]),
            'has decode_head.conv_seg.weight',
        ),
        (dict(more='rope=None'), r'no RoPE \(rope=None\)'),
    ],
)
def test_what_the_release_is_not_is_refused(tool, tmp_path, run, message):
    save_run(tmp_path / 'a.pth', **run)
    with pytest.raises(SystemExit, match=message):
        tool('nepa_mm_to_release', tmp_path / 'a.pth', tmp_path / 'dst')
    assert not (tmp_path / 'dst').exists()
    if 'head' in run:
        out = tool('nepa_mm_to_release', tmp_path / 'a.pth', tmp_path / 'dst', '--backbone-only')
        assert f'{len(run["head"])} tensors of the head were left out' in out
        assert 'num_labels' not in json.loads((tmp_path / 'dst/config.json').read_text())


def test_the_text_of_the_config_is_not_executed(tool, tmp_path):
    save_run(tmp_path / 'a.pth', more=f'causal=__import__("os").mkdir({str(tmp_path / "ran")!r})')
    with pytest.raises(SystemExit, match='cannot be read .*; name the config file instead'):
        tool('nepa_mm_to_release', tmp_path / 'a.pth', tmp_path / 'dst')
    assert not (tmp_path / 'ran').exists()


def test_a_bare_checkpoint_needs_its_config(tool, tmp_path):
    weights = save_run(tmp_path / 'a.pth')
    torch.save(weights, tmp_path / 'bare.pth')
    with pytest.raises(SystemExit, match=r'does not say which backbone it holds; name its config \(--config\)'):
        tool('nepa_mm_to_release', tmp_path / 'bare.pth', tmp_path / 'dst')
    (tmp_path / 'run.py').write_text(
        RUN_CONFIG.format(kind='NEPA', qk_norm='plain', mlp='gelu', layer_scale=1e-5, out_type='raw', more='')
    )
    tool('nepa_mm_to_release', tmp_path / 'bare.pth', tmp_path / 'dst', '--config', tmp_path / 'run.py')
    assert same(load_file(tmp_path / 'dst/model.safetensors'), to_release(weights))
    with pytest.raises(SystemExit, match=r"nepa_mm_to_release\.py: config 'gone\.py' does not exist"):
        tool('nepa_mm_to_release', tmp_path / 'bare.pth', tmp_path / 'dst', '--config', 'gone.py')


def test_normalisation_beside_the_model_is_the_models(tool, tmp_path):
    """As in mmpretrain's own configs."""
    save_run(tmp_path / 'a.pth')
    text = RUN_CONFIG.format(kind='NEPA', qk_norm='plain', mlp='gelu', layer_scale=1e-5, out_type='raw', more='')
    (line,) = [line for line in text.splitlines() if 'data_preprocessor' in line]
    text = text.replace(line, '') + line.strip().removesuffix(',') + '\n'
    (tmp_path / 'run.py').write_text(text)
    tool('nepa_mm_to_release', tmp_path / 'a.pth', tmp_path / 'dst', '--config', tmp_path / 'run.py')
    preprocessor = json.loads((tmp_path / 'dst/preprocessor_config.json').read_text())
    assert (preprocessor['image_mean'], preprocessor['image_std']) == ([0.5] * 3, [0.2] * 3)


@pytest.mark.parametrize('weights', [None, 'raw', 'ema'])
def test_publish(tool, tmp_path, weights):
    raw = save_run(tmp_path / 'epoch_1.pth', ema=True)
    words = [] if weights is None else ['--weights', weights]
    out = tool('publish_model', tmp_path / 'epoch_1.pth', tmp_path / 'out/nepa.pth', *words)
    (path,) = (tmp_path / 'out').iterdir()
    assert f'Wrote {path}.' in out
    assert re.fullmatch(r'nepa_\d{8}-[0-9a-f]{8}\.pth', path.name)
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:8] == path.stem[-8:]
    published = read_checkpoint(path)
    assert set(published) == {'meta', 'state_dict'} and 'model = dict(' in published['meta']['cfg']
    assert same(published['state_dict'], raw if weights == 'raw' else {k: v + 1 for k, v in raw.items()})
