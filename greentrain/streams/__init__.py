"""Experiences, streams of experiences, and functions that build them."""

from greentrain.streams.arrivals import from_callable, from_folder, from_mlflow
from greentrain.streams.digits import digits, digits_stream
from greentrain.streams.images import fashion_mnist, mnist
from greentrain.streams.incremental import (
    class_incremental,
    data_incremental,
    domain_incremental,
    task_incremental,
)
from greentrain.streams.shifted import corrupted, permuted, rotated
from greentrain.streams.stream import Experience, Stream

__all__ = [
    "Experience",
    "Stream",
    "class_incremental",
    "corrupted",
    "data_incremental",
    "digits",
    "digits_stream",
    "domain_incremental",
    "fashion_mnist",
    "from_callable",
    "from_folder",
    "from_mlflow",
    "mnist",
    "permuted",
    "rotated",
    "task_incremental",
]
