"""Experiences, and streams of them."""

from greentrain.streams.digits import digits_stream
from greentrain.streams.experience import Experience

__all__ = ["Experience", "digits_stream"]
