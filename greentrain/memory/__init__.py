"""Buffers of past samples."""

from greentrain.memory.balanced import ClassBalancedBuffer
from greentrain.memory.binplay import BinPlayBuffer
from greentrain.memory.bounded import BoundedBuffer
from greentrain.memory.datasets import SampleList, concat, size
from greentrain.memory.feedback_net import FeedbackNet
from greentrain.memory.full import FullBuffer, owned, pack, unpack
from greentrain.memory.generative import GenerativeBuffer
from greentrain.memory.herding import HerdingBuffer
from greentrain.memory.learned import LearnedBuffer
from greentrain.memory.logarithmic import LogarithmicBuffer
from greentrain.memory.multiband import MultibandBuffer
from greentrain.memory.protocol import Buffer
from greentrain.memory.quantised import QuantisedBuffer
from greentrain.memory.reservoir import RandomReplacementBuffer, ReservoirBuffer
from greentrain.memory.resharding import reshard
from greentrain.memory.retention import RetentionInput
from greentrain.memory.sample_table import RetentionPlan

__all__ = [
    "BinPlayBuffer",
    "BoundedBuffer",
    "Buffer",
    "ClassBalancedBuffer",
    "FeedbackNet",
    "FullBuffer",
    "GenerativeBuffer",
    "HerdingBuffer",
    "LearnedBuffer",
    "LogarithmicBuffer",
    "MultibandBuffer",
    "QuantisedBuffer",
    "RandomReplacementBuffer",
    "ReservoirBuffer",
    "RetentionInput",
    "RetentionPlan",
    "SampleList",
    "concat",
    "owned",
    "pack",
    "reshard",
    "size",
    "unpack",
]
