"""IAM policy documents: parse, compare by meaning with a witness, evaluate one request, find escalation paths.

The parts, each usable alone: `document` (typed documents), `evaluate` (one request against a permission set),
`containment` (is a candidate contained in a baseline), `catalogue` (every action that AWS documents).
"""
