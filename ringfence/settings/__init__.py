"""A stack's settings: the typed model, its profiles and the one loader."""

from ringfence.settings.loader import load, load_stack, stack_file
from ringfence.settings.model import Settings, zoned

__all__ = ["Settings", "load", "load_stack", "stack_file", "zoned"]
