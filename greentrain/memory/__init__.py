"""What is kept of past samples."""

from greentrain.memory.buffers import Buffer, FullBuffer, ReservoirBuffer, SampleList, concat, size

__all__ = ["Buffer", "FullBuffer", "ReservoirBuffer", "SampleList", "concat", "size"]
