"""``compile`` of a config: the loss is compiled as one graph, and nothing else of the run changes."""

import pytest
import torch
from mmengine.registry import RUNNERS
from torch import nn
from torch._dynamo.utils import counters

from nepa_mm.checkpoints import read_checkpoint
from nepa_mm.engine.compiled_loss import compile_loss
from tests.test_engine.two_processes import SHARDED, config

# Any break of the graph is an error.
WHOLE = dict(backend='aot_eager', fullgraph=True)


class Squares(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def loss(self, x):
        return (self.weight * x).square().sum()


@pytest.fixture
def train(tmp_path):
    def run(name, **changes):
        torch._dynamo.reset()
        counters.clear()
        runner = RUNNERS.build(config(tmp_path / name, 'none', batch=4, **changes))
        runner.train()
        return runner, read_checkpoint(tmp_path / name / 'epoch_3.pth')

    return run


@pytest.fixture
def plain(train):
    return train('plain')[1]


@pytest.mark.parametrize('changes', [{}, SHARDED], ids=['NEPARunner', 'NEPAFlexibleRunner'])
def test_a_compiled_run_equals_one_that_is_not(train, plain, changes):
    runner, compiled = train('compiled', compile=WHOLE, **changes)
    assert counters['stats']['unique_graphs'] >= 1
    assert not counters['graph_break']
    assert compiled.keys() == plain.keys()
    for key in ('state_dict', 'ema_state_dict'):
        assert list(compiled[key]) == list(plain[key])
        for name, value in plain[key].items():
            torch.testing.assert_close(compiled[key][name], value, rtol=0, atol=1e-6, msg=name)
    # An image is embedded without the compiler.
    frames = counters['frames']['total']
    runner.model.eval()(torch.zeros(1, 3, 8, 8), mode='tensor')
    assert counters['frames']['total'] == frames


@pytest.mark.parametrize('settings', [None, False])
def test_by_default_nothing_is_compiled(settings, train):
    train('plain', **({} if settings is None else dict(compile=settings)))
    assert not counters['stats']


@pytest.mark.parametrize(
    ('settings', 'error', 'message'),
    [
        ('inductor', TypeError, "compile='inductor': expected True, False or a dict"),
        (dict(target='forward'), ValueError, "compile.target='forward' is not taken: what is compiled is the loss"),
    ],
)
def test_what_it_cannot_do_is_refused(settings, error, message):
    model = Squares()
    with pytest.raises(error, match=message):
        compile_loss(model, settings)
    assert 'loss' not in vars(model)


def test_weights_keep_their_names():
    model = Squares()
    compile_loss(model, dict(backend='eager'))
    assert model.loss(torch.arange(3.0)).item() == 5
    assert list(model.state_dict()) == ['weight']
