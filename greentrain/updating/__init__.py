"""Takes a model through a stream: each update is one fresh Trainer under one reservation."""

from greentrain.updating.modes import ModeOptions, shrink_and_perturb
from greentrain.updating.recording import record
from greentrain.updating.result import UpdateResult
from greentrain.updating.stream_trainer import StreamTrainer

__all__ = ["ModeOptions", "StreamTrainer", "UpdateResult", "record", "shrink_and_perturb"]
