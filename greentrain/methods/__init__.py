"""Building blocks in pure torch that reuse knowledge, computations and partial information."""

from greentrain.methods.feature_store import FeatureStore, content_keys, state_key
from greentrain.methods.freezing import freezing_depth, relative_information

__all__ = [
    "FeatureStore",
    "content_keys",
    "freezing_depth",
    "relative_information",
    "state_key",
]
