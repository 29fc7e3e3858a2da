"""ProbeHook: what the layers know, while the pretraining runs."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ...checkpoints.loader import WEIGHTS
from ...evaluation import (
    WEIGHT_DECAYS,
    FeatureSet,
    backbone_of,
    check_layers,
    check_poolings,
    check_same_classes,
    extract_features,
    layer_name,
    probe_item,
    probe_loader,
    probing,
)


@HOOKS.register_module()
class ProbeHook(Hook):
    """Probe layers on a small labelled set every few epochs or iterations of a pretraining.

    NEPA's loss falls towards -1 in a healthy run and in a collapsed one, and says little about the features; this logs,
    in percent and per layer, ``knn/layer_06`` (top-1 accuracy of a k-NN classifier) and, if asked for,
    ``linear/layer_06`` (of a linear probe), and ``rankme/layer_06``, the effective rank of the features, which falls
    towards 1 when they collapse. They go to the log, to the visualizer's backends and into the message hub, under the
    number of iterations done.

    Training goes on as if the hook were not there, bit for bit: the random state, the mode of every module and the
    gradients are left as they were. In a distributed run the first process probes while the others wait for it, within
    the process group's timeout (``env_cfg.dist_cfg.timeout``); a few thousand images are enough for a curve. Weights
    spread over processes (FSDP) are refused: probe checkpoints with tools/analysis/probe.py instead.

    Args:
        train_dataset (dict): Config of the labelled images that probes learn from, with a pipeline without
            augmentation.
        val_dataset (dict): Config of those they are scored on.
        interval (int): Every so many epochs or iterations, and at the end. Defaults to 10.
        by_epoch (bool): Whether ``interval`` counts epochs. Defaults to True.
        at_start (bool): Probe also before the first step: what an untrained network gives. Defaults to True.
        layers (Sequence[int | str] | str): 'all', or indices as in ``out_indices`` and 'embed' for the patch
            embeddings. Defaults to 'all'.
        pooling (str): See :func:`nepa_mm.evaluation.pool_tokens`. Defaults to 'avg'.
        k (int): Neighbours of the k-NN classifier. Defaults to 20.
        linear (bool): Fit linear probes too. Defaults to False.
        weight_decays (Sequence[float]): Of the linear probes; several are compared on a held-out fifth of the training
            images. Defaults to powers of ten from 1e-6 to 0.1.
        causal (bool, optional): Attention to probe with. Defaults to None: the one that is trained with.
        weights (str): 'raw', or 'ema': the average that the run's EMAHook keeps. Defaults to 'raw'.
        amp (bool): bfloat16 autocast. Defaults to True.
        batch_size (int): Defaults to 256.
        num_workers (int): Processes that load images. Defaults to 4.

    Raises:
        ValueError: An argument does not fit; some are found out when training begins, before its first step.
    """

    priority = 'LOW'  # after EMAHook has averaged the step

    def __init__(
        self,
        train_dataset: dict,
        val_dataset: dict,
        interval: int = 10,
        by_epoch: bool = True,
        at_start: bool = True,
        layers: Sequence[int | str] | str = 'all',
        pooling: str = 'avg',
        k: int = 20,
        linear: bool = False,
        weight_decays: Sequence[float] = WEIGHT_DECAYS,
        causal: bool | None = None,
        weights: str = 'raw',
        amp: bool = True,
        batch_size: int = 256,
        num_workers: int = 4,
    ) -> None:
        for name, count in (('interval', interval), ('k', k), ('batch_size', batch_size)):
            if count < 1:
                raise ValueError(f'ProbeHook: {name}={count} is not positive.')
        if weights not in WEIGHTS:
            raise ValueError(f'ProbeHook: weights={weights!r} is unknown; choose one of {list(WEIGHTS)}.')
        if linear and not weight_decays:
            raise ValueError('ProbeHook: linear=True needs at least one of weight_decays.')
        self.train_dataset, self.val_dataset = train_dataset, val_dataset
        self.interval, self.by_epoch, self.at_start = interval, by_epoch, at_start
        self.layers, self.pooling = layers, pooling
        self.k, self.linear, self.weight_decays = k, linear, tuple(weight_decays)
        self.causal, self.weights, self.amp = causal, weights, amp
        self.batch_size, self.num_workers = batch_size, num_workers

    def before_train(self, runner: Runner) -> None:
        """Build the data sets, refuse what could not be probed later, and probe the start."""
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError('ProbeHook: the run counts iterations; set by_epoch=False, and interval in iterations.')
        model = self._model(runner)
        backbone = backbone_of(model)
        check_layers(self.layers, backbone.num_layers)
        check_poolings([self.pooling], backbone.causal if self.causal is None else self.causal)
        if is_main_process():
            self._sets = [DATASETS.build(dict(cfg)) for cfg in (self.train_dataset, self.val_dataset)]
            check_same_classes(*self._sets)
            if self.k > len(self._sets[0]):
                raise ValueError(f'ProbeHook: k={self.k}, but there are {len(self._sets[0])} training images.')
        if self.at_start and runner.iter == 0:
            self._probe(runner, step=0)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Probe when ``interval`` counts iterations and one is over."""
        if not self.by_epoch and (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            self._probe(runner, step=runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Probe when ``interval`` counts epochs and one is over."""
        if self.by_epoch and (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            self._probe(runner, step=runner.iter)

    def _model(self, runner: Runner) -> nn.Module:
        """The model that is probed: the trained one, or its average."""
        model = runner.model
        if is_model_wrapper(model) and not isinstance(model, DistributedDataParallel):
            raise ValueError(
                f'ProbeHook: {type(model).__name__} spreads the weights over processes, and one process cannot run the '
                'model alone; probe the checkpoints with tools/analysis/probe.py instead.'
            )
        if self.weights == 'raw':
            return model.module if is_model_wrapper(model) else model
        averages = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
        if not averages:
            raise ValueError("ProbeHook: weights='ema', but the run has no EMAHook; add one to custom_hooks.")
        return averages[0]

    def _probe(self, runner: Runner, step: int) -> None:
        if is_main_process():
            start = time.time()
            with kept_random_state():
                scalars = self.probe(self._model(runner))
            for name, value in scalars.items():
                runner.message_hub.update_scalar(name, value)
            runner.visualizer.add_scalars(scalars, step=step, file_path=f'{runner.timestamp}.json')
            runner.logger.info(f'Probe at iteration {step} ({time.time() - start:.0f} s): {_in_words(scalars)}')
        barrier()

    def probe(self, model: nn.Module) -> dict[str, float]:
        """Probe a model as it is.

        Args:
            model (nn.Module): A model with a ``backbone`` and a ``data_preprocessor``.

        Returns:
            dict[str, float]: The scalars, by name.
        """
        backbone = backbone_of(model)
        preprocessor: nn.Module = model.data_preprocessor  # type: ignore[assignment]
        device = backbone.cls_token.device
        items = [(layer, self.pooling) for layer in check_layers(self.layers, backbone.num_layers)]
        sets = []
        with probing(backbone, self.causal):
            for dataset in self._sets:
                arrays = {item: np.empty((len(dataset), backbone.embed_dims), np.float32) for item in items}
                batches = probe_loader(dataset, self.batch_size, self.num_workers)
                labels = extract_features(backbone, preprocessor, batches, items, arrays, amp=self.amp)
                sets.append(FeatureSet(arrays, labels))
        train, val = sets
        num_classes = int(max(train.labels.max(), val.labels.max())) + 1
        scalars: dict[str, float] = {}
        for item in items:
            result = probe_item(
                train, val, item, num_classes, (self.k,), self.linear, self.weight_decays, device=device
            )
            name = layer_name(result.layer)
            scalars[f'knn/{name}'] = result.knn[self.k][0]
            if result.linear is not None:
                scalars[f'linear/{name}'] = result.linear[0]
            scalars[f'rankme/{name}'] = result.effective_rank
        return scalars


def _in_words(scalars: dict[str, float]) -> str:
    """The best layer of each kind, and the lowest rank."""
    parts = []
    for kind, choose, unit in (('knn', max, ' %'), ('linear', max, ' %'), ('rankme', min, '')):
        values = {name.split('/')[1]: value for name, value in scalars.items() if name.startswith(f'{kind}/')}
        if values:
            layer = choose(values, key=values.__getitem__)
            parts.append(f'{kind} {"best" if choose is max else "lowest"} {values[layer]:.1f}{unit} at {layer}')
    return ', '.join(parts)


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Leave the random generators of Python, numpy and torch where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
