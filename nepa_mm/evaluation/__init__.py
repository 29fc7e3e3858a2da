"""Evaluation of frozen features: any layer and pooling, in one pass over the images."""

from .data import check_linear_probe, check_same_classes, probe_loader
from .errors import ProbeError
from .feature_cache import FeatureCache, hash_samples, hash_weights
from .features import EMBED, backbone_of, check_layers, extract_features, layer_name, probing
from .knn import accuracy, knn_votes
from .linear_probe import WEIGHT_DECAYS, LinearProbe, choose_weight_decay, fit_linear_probe, split_by_class
from .per_class import PerClassMetric
from .pooling import POOLINGS, check_poolings, pool_tokens
from .probe import FeatureSet, ProbeResult, probe_item
from .probe_layers import ProbeSettings, probe_layers
from .probe_report import ProbeReport
from .rankme import effective_rank

__all__ = [
    'EMBED',
    'FeatureCache',
    'FeatureSet',
    'LinearProbe',
    'POOLINGS',
    'PerClassMetric',
    'ProbeError',
    'ProbeReport',
    'ProbeResult',
    'ProbeSettings',
    'WEIGHT_DECAYS',
    'accuracy',
    'backbone_of',
    'check_layers',
    'check_poolings',
    'check_linear_probe',
    'check_same_classes',
    'choose_weight_decay',
    'effective_rank',
    'extract_features',
    'fit_linear_probe',
    'hash_samples',
    'hash_weights',
    'knn_votes',
    'layer_name',
    'pool_tokens',
    'probe_item',
    'probe_layers',
    'probe_loader',
    'probing',
    'split_by_class',
]
