# Pretraining and classification: mmpretrain's scope.
_base_ = './default_runtime.py'
default_scope = 'mmpretrain'

visualizer = dict(type='LazyUniversalVisualizer', vis_backends={{_base_.vis_backends}})
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='SafeCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    bad_data=dict(type='BadDataHook', max_bad_share=0.01),
    bad_numbers=dict(type='BadNumbersHook', patience=10),
    collapse=dict(type='CollapseHook'),  # of pretraining; the others do not have its figures
    stop=dict(type='StopOnSignalHook'),
    visualization=dict(type='VisualizationHook', enable=False),
)
