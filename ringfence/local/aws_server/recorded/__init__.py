"""What moto lacks, recorded: which operations, and who answers them."""

from __future__ import annotations
