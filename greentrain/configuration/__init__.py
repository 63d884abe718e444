"""The configuration of ``greentrain run``: a YAML file, checked as a whole before training."""

from greentrain.configuration.stream_configuration import Configuration, configure
from greentrain.configuration.yaml_file import TEMPLATE, read

__all__ = ["TEMPLATE", "Configuration", "configure", "read"]
