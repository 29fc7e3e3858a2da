"""Parity with the release: outputs, loss, gradients, attention, five training steps, classifier."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

from nepa_mm.checkpoints import from_release
from nepa_mm.models import NEPA, NEPAClsHead, NEPAHead
from nepa_mm.visualization import attention_maps
from tests import golden

ATOL = 1e-5


def _close(ours, theirs, atol=ATOL):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize('name', golden.PRETRAIN_CASES)
def test_pretraining_outputs_loss_and_gradients(name):
    case, data = golden.CASES[name], golden.tensors(name)
    model = golden.build_backbone(case['config'], causal=case['is_causal']).eval()
    model.load_state_dict(from_release(golden.part(data, 'state.')))

    prediction, embeddings = model.predict_next(data['pixel_values'])
    _close(embeddings, data['input_embedding'])
    _close(prediction, data['last_hidden_state'])

    loss = NEPAHead().loss(prediction, embeddings)['loss']
    _close(loss, data['loss'].squeeze())
    loss.backward()
    expected = from_release(golden.part(data, 'grad.'))
    grads = {n: p.grad for n, p in model.named_parameters()}
    assert set(grads) == set(expected)
    for n, grad in grads.items():
        _close(grad, expected[n], atol=ATOL * expected[n].abs().max().item())


@pytest.mark.parametrize('name', golden.PRETRAIN_CASES)
def test_attention(name):
    case, data = golden.CASES[name], golden.tensors(name)
    model = golden.build_backbone(case['config'], causal=case['is_causal']).eval()
    model.load_state_dict(from_release(golden.part(data, 'state.')))
    maps = attention_maps(model, data['pixel_values'])
    _close(maps, data['attentions'])
    assert maps.triu(1).count_nonzero() == 0
    assert all(layer.attn.fused_attn for layer in model.layers), 'the fast path must be back'
    model.out_indices = (0,)
    assert len(attention_maps(model, data['pixel_values'][:1])) == len(model.layers)


def test_classifier():
    case, data = golden.CASES['classify_bidirectional'], golden.tensors('classify_bidirectional')
    config = case['config']
    weights = from_release(golden.part(data, 'state.'))
    backbone = golden.build_backbone(config, causal=config['is_causal'], out_type='avg_featmap').eval()
    backbone.load_state_dict({k: v for k, v in weights.items() if not k.startswith('head.')})
    head = NEPAClsHead(num_classes=config['num_labels'], in_channels=config['hidden_size'])
    head.load_state_dict(golden.part(weights, 'head.'))

    backbone.out_type = 'raw'
    _close(backbone(data['pixel_values'])[0], data['last_hidden_state'])
    backbone.out_type = 'avg_featmap'
    _close(head(backbone(data['pixel_values'])), data['logits'])


def test_five_training_steps():
    """The pretraining recipe's optimiser, clipping and decay rule, through mmengine's optim wrapper."""
    told = json.loads((golden.GOLDEN / 'train_steps.json').read_text())
    data = golden.tensors('train_steps')
    model = MODELS.build(dict(type='NEPA', backbone=golden.backbone_config(told['config'], causal=True)))
    assert isinstance(model, NEPA)
    model.backbone.load_state_dict(from_release(golden.part(data, 'init.')))
    recipe = Config.fromfile(golden.ROOT / 'configs' / '_base_' / 'schedules' / 'adamw_pretrain.py').optim_wrapper
    recipe.pop('dtype')
    recipe.type = 'OptimWrapper'  # fp32, as the reference
    recipe.optimizer.lr = 1e-3
    wrapper = build_optim_wrapper(model, recipe)
    decayed_ours = {id(p) for g in wrapper.param_groups if g['weight_decay'] > 0 for p in g['params']}
    ones = {name: torch.ones(1) for name in told['decayed']}
    decayed = set(from_release(ones))
    assert {n for n, p in model.backbone.named_parameters() if id(p) in decayed_ours} == decayed

    model.train()
    losses, norms = [], []
    for images in data['pixel_values']:
        with wrapper.optim_context(model):
            out = model(images, mode='loss')
        losses.append(out['loss'].item())
        wrapper.backward(out['loss'])
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item())
        wrapper.step()
        wrapper.zero_grad()
    assert losses == pytest.approx(told['pretrain_losses'], abs=ATOL)
    assert norms == pytest.approx(told['pretrain_grad_norms'], abs=ATOL)
    final = from_release(golden.part(data, 'final.'))
    for n, p in model.backbone.named_parameters():
        _close(p.detach(), final[n])
