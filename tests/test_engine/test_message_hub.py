"""DeferredMessageHub: the values of mmengine's hub, without waiting and without copying the history."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nepa_mm.checkpoints import read_checkpoint
from nepa_mm.engine import DeferredMessageHub
from nepa_mm.engine.message_hub import GrowingHistory

NAMES = (f'hub-{i}' for i in itertools.count())


@pytest.fixture
def hubs(monkeypatch):
    """Ours and mmengine's, in a table of their own."""
    monkeypatch.setattr(MessageHub, '_instance_dict', {})
    monkeypatch.setattr(DeferredMessageHub, '_instance_dict', MessageHub._instance_dict)
    return DeferredMessageHub(next(NAMES)), MessageHub(next(NAMES))


class Reads(TorchDispatchMode):
    """Counts how often a tensor becomes a Python number."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_tensor_is_not_read_until_it_is_asked_for(hubs):
    ours, theirs = hubs
    with Reads() as theirs_reads:
        theirs.update_scalar('train/loss', torch.tensor(0.5))
    assert theirs_reads.count == 1  # what this class is for
    with Reads() as reads:
        for _ in range(10):
            ours.update_scalar('train/loss', torch.tensor(0.5))
            ours.update_scalar('train/time', 0.25)
            assert ours.get_scalar('train/time').current() == 0.25  # the timer hook reads its own at every iteration
    assert reads.count == 0
    assert len(ours._waiting) == 10
    assert ours.get_scalar('train/loss').mean() == 0.5
    assert ours._waiting == []


def test_histories_are_those_of_mmengine(hubs):
    values = [
        ('a', torch.tensor(0.1)),
        ('b', 3),
        ('a', 0.2),
        ('a', torch.tensor([0.3], dtype=torch.bfloat16)),
        ('c', torch.tensor(7)),
        ('b', 0.5),
        ('a', np.float32(0.4)),
        ('c', np.array([8])),
        ('d', torch.tensor(1.0, requires_grad=True).exp()),
        ('e', torch.tensor(float('nan'))),
        ('d', nn.Parameter(torch.tensor([[2.0]]))),
    ]
    for hub in hubs:
        for key, value in values:
            hub.update_scalar(key, value, count=2)
    ours, theirs = (hub.log_scalars for hub in hubs)
    assert list(theirs) == ['a', 'b', 'c', 'd', 'e']
    assert set(ours) == set(theirs)
    for key, history in theirs.items():
        for mine, other in zip(ours[key].data, history.data, strict=True):
            np.testing.assert_array_equal(mine, other)
            assert mine.dtype == other.dtype
        assert [ours[key].mean(1), ours[key].max()] == pytest.approx([history.mean(1), history.max()], nan_ok=True)


def test_what_happens_to_a_tensor_later_does_not_change_the_history(hubs):
    loss = torch.tensor(1.0)
    hubs[0].update_scalar('loss', loss)
    loss.mul_(100)
    assert hubs[0].get_scalar('loss').current() == 1


def test_waiting_tensors_are_bounded(hubs):
    hub, _ = hubs
    hub.MOST_WAITING = 6
    for i in range(13):
        hub.update_scalar('loss', torch.tensor(float(i)))
    assert len(hub._waiting) == 1
    assert hub.get_scalar('loss').data[0].tolist() == list(range(13))


def test_more_than_one_number_is_refused_at_once(hubs):
    with pytest.raises(AssertionError):  # mmengine's
        hubs[0].update_scalar('loss', torch.ones(2))
    with pytest.raises(TypeError, match="count of 'loss' must be an int, but got float"):
        hubs[0].update_scalar('loss', torch.ones(1), count=0.5)


def test_an_unknown_scalar_is_named(hubs):
    hubs[0].update_scalar('loss', torch.ones(1))
    with pytest.raises(KeyError, match="has no scalar 'lass'; it has"):
        hubs[0].get_scalar('lass')


def test_the_current_hub_is_one_for_both_classes(hubs):
    hub = DeferredMessageHub.get_instance('now')
    assert MessageHub.get_current_instance() is hub
    assert DeferredMessageHub.get_current_instance() is hub
    assert DeferredMessageHub.get_instance('now') is hub


def test_a_checkpoint_holds_classes_of_mmengine_and_is_gone_on_from(hubs, tmp_path):
    ours, theirs = hubs
    for value in (1.0, 2.0):
        ours.update_scalar('loss', torch.tensor(value))
        ours.update_scalar('secret', value, resumed=False)
    ours.update_info('iter', 2)
    state = ours.state_dict()
    assert list(state['log_scalars']) == ['loss']
    assert type(state['log_scalars']['loss']) is HistoryBuffer
    torch.save(dict(state_dict={'w': torch.ones(1)}, message_hub=state), tmp_path / 'run.pth')
    read = read_checkpoint(tmp_path / 'run.pth')['message_hub']
    again = DeferredMessageHub('again')
    for hub in (theirs, again):  # mmengine's own runner could go on from it, too
        hub.load_state_dict(copy.deepcopy(read))
        hub.update_scalar('loss', torch.tensor(3.0))
        assert hub.get_scalar('loss').data[0].tolist() == [1, 2, 3]
        assert hub.get_info('iter') == 2
    assert type(again.get_scalar('loss')) is GrowingHistory
    again.load_state_dict(theirs)  # old checkpoints hold a hub itself
    assert again.get_scalar('loss').data[0].tolist() == [1, 2, 3]


def test_a_history_does_not_copy_itself_to_grow():
    history = GrowingHistory()
    rooms = set()
    for i in range(1000):
        history.update(float(i))
        rooms.add(id(history._logs))
    assert len(rooms) <= 5  # 64, 128, ..., 1024
    assert history.data[0].tolist() == list(range(1000))
    assert history.mean(10) == 994.5


def test_a_history_drops_the_oldest_as_mmengines_does():
    ours, theirs = GrowingHistory(max_length=50), HistoryBuffer(max_length=50)
    for i in range(333):
        ours.update(i + 0.5, 2)
        theirs.update(i + 0.5, 2)
        assert len(ours.data[0]) == len(theirs.data[0])
    np.testing.assert_array_equal(ours.data, theirs.data)
    assert len(ours._logs) <= 2 * 64
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ours)).data, theirs.data)


def test_a_history_takes_numbers_only():
    with pytest.raises(TypeError, match='takes numbers, but got str and count int'):
        GrowingHistory().update('1')
