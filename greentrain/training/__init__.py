"""Update the model of a stream: each update is one fresh Trainer within one reservation."""

from greentrain.training.config import CarbonConfig, EvaluationConfig, ModeConfig
from greentrain.training.fit import shrink_and_perturb
from greentrain.training.result import ReportedTraining, UpdateResult
from greentrain.training.stream_trainer import StreamTrainer

__all__ = [
    "CarbonConfig",
    "EvaluationConfig",
    "ModeConfig",
    "ReportedTraining",
    "StreamTrainer",
    "UpdateResult",
    "shrink_and_perturb",
]
