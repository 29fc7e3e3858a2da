# Pretraining and classification: mmpretrain's scope.
_base_ = './default_runtime.py'
default_scope = 'mmpretrain'

visualizer = dict(type='UniversalVisualizer', vis_backends={{_base_.vis_backends}})
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
)
