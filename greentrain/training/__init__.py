"""Update a model, once or on a stream: each update is one fresh Trainer in one reservation."""

from greentrain.training.config import CarbonConfig, EvaluationConfig, ModeConfig
from greentrain.training.model_update import update
from greentrain.training.result import ReportedTraining, UpdateResult
from greentrain.training.start_by import StartBy
from greentrain.training.stream_trainer import StreamTrainer
from greentrain.training.update_outcome import ModelUpdate
from greentrain.training.weights import shrink_and_perturb
from greentrain.training.weights_digest import weights_sha256

__all__ = [
    "CarbonConfig",
    "EvaluationConfig",
    "ModeConfig",
    "ModelUpdate",
    "ReportedTraining",
    "StartBy",
    "StreamTrainer",
    "UpdateResult",
    "shrink_and_perturb",
    "update",
    "weights_sha256",
]
