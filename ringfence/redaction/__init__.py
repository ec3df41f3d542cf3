"""What must not leave in the clear: secrets' shapes, exact secrets, and the one way of masking both."""

from ringfence.redaction.output import MaskedOutput
from ringfence.redaction.redactor import MASK, Redactor

__all__ = ["MASK", "MaskedOutput", "Redactor"]
