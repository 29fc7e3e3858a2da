"""Killed and resumed: the end is that of a run without a break, to the last bit."""

import logging
import shutil
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.registry import RUNNERS

from nepa_mm.checkpoints import CheckpointError, read_checkpoint
from nepa_mm.engine import NEPARunner
from nepa_mm.engine.loops import ResumableEpochLoop
from tests.golden import ROOT
from tests.killed_runs import assert_same_end, config, train, train_and_die
from tests.layouts import make_image


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    """Work directories of runs that nobody killed, by kind of loop."""
    folders = {}
    for by_epoch in (False, True):
        folders[by_epoch] = tmp_path_factory.mktemp('unbroken')
        train(config(folders[by_epoch], by_epoch))
    return folders


# ---------------------------------------------------------------- kills


@pytest.mark.parametrize('by_epoch', [False, True])
def test_killed_three_times_ends_as_if_it_had_not_been(unbroken, tmp_path, by_epoch):
    """Between two updates, in the middle of a write, and in a validation whose checkpoint is on the disk."""
    cfg = config(tmp_path, by_epoch)
    train_and_die(cfg.copy(), hook=(7, 'before_train_iter'))
    train_and_die(cfg.copy(), in_write=1)
    train_and_die(cfg.copy(), hook=(12, 'before_val_epoch'))
    train(cfg)
    assert_same_end(tmp_path, unbroken[by_epoch])


def test_killed_after_a_score_between_two_checkpoints(tmp_path):
    """Checkpoints at 6, 12 and 14, validations at 4, 8, 12 and 14."""

    def run(folder):
        cfg = config(folder, by_epoch=False, workers=0, accumulation=1)
        cfg.default_hooks.checkpoint.update(interval=6, rule=rule)
        return cfg

    for rule in ('greater', 'less'):
        whole, killed = tmp_path / f'whole {rule}', tmp_path / f'killed {rule}'
        train(run(whole))
        train_and_die(run(killed), hook=(9, 'before_train_iter'))
        train_and_die(run(killed), hook=(12, 'before_val_epoch'))
        train(run(killed))
        assert_same_end(killed, whole)


def test_a_damaged_checkpoint_costs_only_the_way_from_the_one_before(unbroken, tmp_path, log):
    cfg = config(tmp_path, by_epoch=True, workers=0)
    train_and_die(cfg.copy(), hook=(11, 'before_train_iter'))
    newest = tmp_path / 'epoch_2.pth'
    newest.write_bytes(newest.read_bytes()[:-1000])
    train(cfg)
    assert any(f'{newest} is damaged: cut short' in text and 'epoch_1.pth instead' in text for _, text in log)
    assert (logging.INFO, 'resumed epoch: 1, iter: 6') in log
    (tmp_path / 'epoch_2.pth.damaged').unlink()
    assert_same_end(tmp_path, unbroken[True])


def test_a_run_with_damaged_checkpoints_only_does_not_begin_anew(tmp_path):
    (tmp_path / 'epoch_1.pth').write_bytes(b'PK, but not much more')
    with pytest.raises(CheckpointError, match=r'epoch_1\.pth is damaged'):
        train(config(tmp_path, by_epoch=True, workers=0))


def test_all_processes_hear_of_what_the_first_meets(tmp_path, monkeypatch):
    """Whatever it is: they would wait for it for ever."""

    def fail(folder):
        raise PermissionError(13, 'Permission denied')

    told = []
    monkeypatch.setattr('nepa_mm.engine.resuming.last_whole', fail)
    monkeypatch.setattr('nepa_mm.engine.resuming.broadcast_object_list', told.append)
    runner = SimpleNamespace(work_dir=str(tmp_path))
    with pytest.raises(PermissionError):
        NEPARunner._last_whole(runner)
    assert told == [[None, '[Errno 13] Permission denied']]

    def hear(found):
        found[:] = told[0]

    monkeypatch.setattr('nepa_mm.engine.resuming.is_main_process', lambda: False)
    monkeypatch.setattr('nepa_mm.engine.resuming.broadcast_object_list', hear)
    with pytest.raises(CheckpointError, match='Permission denied'):
        NEPARunner._last_whole(runner)


def test_a_checkpoint_inside_an_epoch(unbroken, tmp_path, log):
    """Of a run by epochs, but saved by iterations."""
    cfg = config(tmp_path, by_epoch=True)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=2, save_best=None)
    train_and_die(cfg.copy(), hook=(11, 'before_train_iter'))
    train(cfg)
    assert (logging.INFO, 'Going on inside epoch 3, after 1 of its iterations.') in log
    ends = (read_checkpoint(path) for path in (tmp_path / 'iter_12.pth', unbroken[True] / 'epoch_3.pth'))
    first, second = (end['state_dict'] for end in ends)
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_batches_that_cannot_be_skipped_are_loaded_again(tmp_path, log):
    cfg = config(tmp_path, by_epoch=True, accumulation=1)
    cfg.train_dataloader.batch_sampler = dict(type='OwnBatches', drop_last=False)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=2, save_best=None)
    train_and_die(cfg.copy(), hook=(11, 'before_train_iter'))
    train(cfg)
    assert any(text.startswith('Loading 2 batches again: ') for _, text in log)
    whole = config(tmp_path / 'whole', by_epoch=True, accumulation=1)
    whole.merge_from_dict(dict(train_dataloader=cfg.train_dataloader, default_hooks=cfg.default_hooks))
    train(whole)
    assert_same_end(tmp_path, tmp_path / 'whole')


def recipe(data, work_dir):
    """The fine-tuning recipe of NEPA-B, all of its classes, at tiny size: 24 iterations in epochs of 6."""
    cfg = Config.fromfile(ROOT / 'configs/classification/nepa_base-p14_8xb128-bf16-coslr-100e_in1k.py')
    backbone = cfg.model.backbone
    backbone.pop('init_cfg')
    backbone.update(arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32), layer_scale_init=0.1)
    cfg.model.head.in_channels = 16
    for name, size, workers in (('train', 4, 2), ('val', 2, 0), ('test', 2, 0)):
        loader = cfg[f'{name}_dataloader']
        loader.dataset.data_root = str(data)
        loader.update(batch_size=size, num_workers=workers, persistent_workers=workers > 0, pin_memory=False)
        for step in loader.dataset.pipeline:
            step.update({key: small for key, small in (('scale', 28), ('crop_size', 28)) if key in step})
    cfg.param_scheduler[0].update(warmup=1, end=4)
    cfg.train_cfg.update(max_epochs=4, val_interval=2)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=5, max_keep_ckpts=2)
    cfg.update(auto_resume=True, work_dir=str(work_dir), launcher='none', experiment_name=f'recipe-{work_dir.name}')
    return cfg


def test_a_recipe_killed_inside_its_epochs(tmp_path, log, monkeypatch):
    """Decoding workers, RandAugment, erasing, mixing of batches, drop path, layer-wise rates, fused AdamW, average."""
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **kwargs: (text, True))  # takes seconds
    for split, number in (('train', 26), ('val', 4)):
        for i in range(number):
            make_image(tmp_path / f'data/{split}/n0{i % 2}/{i * "x"}.jpg')
    train(recipe(tmp_path / 'data', tmp_path / 'unbroken'))
    killed = recipe(tmp_path / 'data', tmp_path / 'killed')
    named = {killed.optim_wrapper.constructor, killed.param_scheduler[0].type, killed.custom_hooks[0].ema_type}
    assert named == {'BackboneLayerDecayConstructor', 'LayerWiseCosineLR', 'ForeachEMA'}
    steps = [step.type for step in killed.train_dataloader.dataset.pipeline]
    assert (steps[1], killed.model.train_cfg.augments.type) == ('DecodeRandomResizedCrop', 'TimmMixup')
    assert killed.optim_wrapper.optimizer.fused
    train_and_die(killed.copy(), hook=(13, 'before_train_iter'))
    train_and_die(killed.copy(), hook=(17, 'after_train_iter'))
    log.clear()
    train(killed)
    assert (logging.INFO, 'Going on inside epoch 3, after 3 of its iterations.') in log
    assert_same_end(tmp_path / 'killed', tmp_path / 'unbroken')


# ---------------------------------------------------------------- what a resume takes from where


def test_a_drawn_seed_is_taken_from_the_checkpoint(tmp_path):
    cfg = config(tmp_path, by_epoch=True, randomness=dict(seed=None, diff_rank_seed=True))
    train(cfg)
    again = tmp_path / 'again'
    again.mkdir()
    shutil.copy(tmp_path / 'epoch_2.pth', again)
    train(config(again, by_epoch=True, randomness=dict(seed=None, diff_rank_seed=True)))
    first, second = (read_checkpoint(folder / 'epoch_3.pth') for folder in (tmp_path, again))
    assert first['meta']['seed'] == second['meta']['seed']
    for name, tensor in first['state_dict'].items():
        assert torch.equal(second['state_dict'][name], tensor), name


class UpstreamsIterator:
    """What upstream's mmengine 0.10 has in a loop of iterations: workers start with it, and nothing can be skipped."""

    def __init__(self, dataloader):
        self._iterator = iter(dataloader)

    def __next__(self):
        return next(self._iterator)

    def skip_iter(self, number):  # there the loop's own
        for _ in range(number):
            next(self)


@pytest.mark.parametrize('workers', [0, 2])
def test_iterations_are_resumed_with_upstreams_mmengine(tmp_path, monkeypatch, workers):
    """With a drawn seed, which the loop does not know when its workers begin."""
    monkeypatch.delattr(InfiniteSampler, 'skip', raising=False)
    monkeypatch.setattr('mmengine.runner.loops._InfiniteDataloaderIterator', UpstreamsIterator)
    cfg = config(tmp_path, by_epoch=False, workers=workers, randomness=dict(seed=None, diff_rank_seed=True))
    train(cfg)
    again = tmp_path / 'again'
    again.mkdir()
    shutil.copy(tmp_path / 'iter_12.pth', again)
    train(config(again, by_epoch=False, workers=workers, randomness=cfg.randomness))
    first, second = (read_checkpoint(folder / 'iter_14.pth') for folder in (tmp_path, again))
    assert all(torch.equal(second['state_dict'][name], tensor) for name, tensor in first['state_dict'].items())
    first, second = (end['message_hub']['log_scalars']['train/loss'].data[0] for end in (first, second))
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize('diff_rank_seed', [False, True])
def test_validation_draws_as_before_after_a_resume(tmp_path, diff_rank_seed):
    """With a drawn seed; what a validation draws shows in its score."""
    randomness = dict(seed=None, diff_rank_seed=diff_rank_seed)
    cfg = config(tmp_path, by_epoch=True, workers=0, randomness=randomness)
    expected = train(cfg).val_loop.run()
    again = config(tmp_path / 'again', by_epoch=True, workers=0, randomness=randomness, auto_resume=False, resume=True)
    again.load_from = str(tmp_path / 'epoch_3.pth')
    assert train(again).val_loop.run() == expected


def test_without_a_checkpoint_a_run_starts_as_if_it_was_not_to_resume(tmp_path, unbroken, log):
    cfg = config(tmp_path, by_epoch=True, workers=0, load_from=str(unbroken[True] / 'epoch_3.pth'))
    runner = RUNNERS.build(cfg)
    runner.call_hook('before_run')
    runner.load_or_resume()
    assert any('no checkpoint in ' in text and 'starts from load_from=' in text for _, text in log)
    assert (runner._has_loaded, runner.iter) == (True, 0)


def test_a_test_takes_the_checkpoint_that_it_is_given(tmp_path, unbroken, log):
    cfg = config(tmp_path, by_epoch=True, workers=0)
    shutil.copy(unbroken[True] / 'epoch_2.pth', tmp_path)
    cfg.load_from = str(unbroken[True] / 'epoch_3.pth')
    cfg.merge_from_dict(dict(test_dataloader=cfg.val_dataloader, test_cfg={}, test_evaluator=cfg.val_evaluator))
    assert cfg.auto_resume
    RUNNERS.build(cfg).test()
    assert any(text.startswith('Loaded ') and cfg.load_from in text for _, text in log)


def resume(folder, unbroken, by_epoch, **kwargs):
    """A runner that has resumed from the last checkpoint but one."""
    path = unbroken[by_epoch] / ('epoch_2.pth' if by_epoch else 'iter_12.pth')
    cfg = config(folder, by_epoch, auto_resume=False, resume=True, load_from=str(path), **kwargs)
    runner = RUNNERS.build(cfg)
    runner.call_hook('before_run')
    runner.resume(str(path))
    return runner


def test_an_epoch_of_another_length_is_refused(tmp_path, unbroken):
    with pytest.raises(
        CheckpointError,
        match=r'11 images in batches of 3 \(1 processes, 4 iterations per epoch\); this run has 14 images in',
    ):
        resume(tmp_path, unbroken, by_epoch=True, length=14)


def test_an_epoch_that_drops_more_on_fewer_processes_is_refused(tmp_path, unbroken, monkeypatch):
    """11 images on 3 processes are 4 for each, so 4 iterations; one process that drops its last batch does 3."""
    loader = config(tmp_path, by_epoch=True).train_dataloader
    with pytest.raises(CheckpointError, match=r'4 iterations per epoch\); this run has 11 .* 3 iterations per epoch\)'):
        resume(tmp_path, unbroken, by_epoch=True, train_dataloader=dict(loader, drop_last=True))


def test_a_checkpoint_that_does_not_know_its_iterations_may_go_on(tmp_path, unbroken, log):
    runner = resume(tmp_path, unbroken, by_epoch=True)
    log.clear()
    runner.check_data(dict(images=11, batch=3, processes=1), 'old.pth')
    assert log == []
    runner.check_data(dict(images=11, batch=3, processes=3), 'old.pth')
    assert [text.split(' goes on')[0] for _, text in log] == [
        'old.pth was trained on 11 images in batches of 3 (3 processes) and'
    ]


def test_other_images_are_warned_of_without_epochs(tmp_path, unbroken, log):
    resume(tmp_path, unbroken, by_epoch=False, length=14)
    assert any('this run has 14 images in batches of 3 (1 processes): other images follow' in text for _, text in log)


def test_another_number_of_processes_may_go_on(tmp_path, unbroken, log, monkeypatch):
    facts = dict(images=11, batch=3, processes=3, iterations=4)
    monkeypatch.setattr('nepa_mm.engine.NEPARunner._data_facts', lambda self: facts)
    resume(tmp_path, unbroken, by_epoch=True)
    assert any('goes on with 3: the same images in the same batches' in text for _, text in log)


def test_a_checkpoint_of_another_runner_may_go_on(tmp_path, unbroken):
    checkpoint = torch.load(unbroken[True] / 'epoch_2.pth', weights_only=False)
    del checkpoint['meta']['data']
    torch.save(checkpoint, tmp_path / 'epoch_2.pth')
    assert train(config(tmp_path, by_epoch=True, workers=0)).epoch == 3


# ---------------------------------------------------------------- what is built


@pytest.mark.parametrize('given', [dict(by_epoch=True), dict(type='EpochBasedTrainLoop')])
def test_loops_of_epochs_can_be_gone_on_with(tmp_path, given):
    runner = RUNNERS.build(config(tmp_path, by_epoch=True, train_cfg=dict(given, max_epochs=1, val_interval=2)))
    assert type(runner.train_loop) is ResumableEpochLoop
    assert (runner.train_loop.max_epochs, runner.train_loop.val_interval) == (1, 2)
