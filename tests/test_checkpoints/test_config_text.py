"""The text of a config inside a checkpoint is code to mmengine: nobody runs it."""

import mmseg.apis
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, Runner
from mmpretrain.registry import MODELS

from nepa_mm.checkpoints import read_checkpoint
from nepa_mm.engine import NEPARunner
from tests.test_checkpoints.test_entries import classifier, config, whole


def code(folder) -> str:
    return f"model = open({str(folder / 'ran')!r}, 'w').close() or dict()\n"


def write(folder, checkpoint) -> str:
    torch.save(checkpoint, folder / 'a.pth')
    return str(folder / 'a.pth')


def resumable(folder):
    """A checkpoint after one epoch of two iterations, which holds code where configs are kept."""
    model = MODELS.build(classifier())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    checkpoint = whole() | dict(optimizer=optimizer.state_dict(), param_schedulers=[])
    checkpoint['meta'] |= dict(config=code(folder), cfg=code(folder), seed=0, experiment_name='a')
    checkpoint['message_hub'] = dict(log_scalars={}, runtime_info=dict(cfg=code(folder)), resumed_keys={})
    return write(folder, checkpoint)


def test_mmengine_would_run_it(tmp_path):
    """What the others are tested against: this is how mmengine reads such a text."""
    Config.fromstring(code(tmp_path), file_format='.py')
    assert (tmp_path / 'ran').exists()


@pytest.mark.parametrize('kind', [Runner, NEPARunner])
def test_resuming_does_not_run_it(tmp_path, kind):
    cfg = config(tmp_path, load_from=resumable(tmp_path), resume=True)
    runner = kind.from_cfg(cfg)
    runner.train()
    assert runner.epoch == 1
    assert not (tmp_path / 'ran').exists()


def test_an_inferencer_without_a_config_does_not_run_it(tmp_path):
    checkpoint = whole()
    checkpoint['meta']['cfg'] = code(tmp_path)
    checkpoint['message_hub'] = dict(runtime_info=dict(cfg=code(tmp_path)))
    with pytest.raises(ValueError, match='Cannot find the config in the checkpoint'):
        mmseg.apis.MMSegInferencer(None, weights=write(tmp_path, checkpoint), device='cpu')
    assert not (tmp_path / 'ran').exists()


def test_the_rest_of_a_checkpoint_reaches_the_hosts(tmp_path):
    path = resumable(tmp_path)
    loaded = CheckpointLoader.load_checkpoint(path, 'cpu')
    assert loaded['meta'] == dict(
        epoch=1, iter=2, dataset_meta=dict(classes=('a', 'b', 'c')), seed=0, experiment_name='a'
    )
    assert loaded['message_hub']['runtime_info'] == {}
    # Ours reads it as it is; nepa_mm.checkpoints.recorded_config takes literals out of it.
    assert read_checkpoint(path)['meta']['cfg'] == code(tmp_path)
