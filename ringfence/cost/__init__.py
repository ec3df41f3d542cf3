"""The monthly estimate from a stack's own settings and a dated price table."""

from ringfence.cost.estimate import Estimate, Line, Usage, estimate, summary_line

__all__ = ["Estimate", "Line", "Usage", "estimate", "summary_line"]
