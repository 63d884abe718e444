"""What ``greentrain run`` is told: a YAML file, checked as a whole before anything is made."""

from greentrain.configuration.configuration import Configuration, Outputs, configure
from greentrain.configuration.file import TEMPLATE, override, read

__all__ = ["TEMPLATE", "Configuration", "Outputs", "configure", "override", "read"]
