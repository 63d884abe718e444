"""Takes a model through a stream: each update is one fresh Trainer under one reservation."""

from greentrain.training.modes import ModeConfig, shrink_and_perturb
from greentrain.training.result import UpdateResult
from greentrain.training.stream_trainer import StreamTrainer

__all__ = ["ModeConfig", "StreamTrainer", "UpdateResult", "shrink_and_perturb"]
