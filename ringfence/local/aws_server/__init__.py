"""The embedded target's AWS: moto in one process, with what moto lacks recorded, behind our own WSGI layer.

Not an emulator of AWS's behaviour: it holds what the stack says, so that plain AWS clients
can read it back. What moto does not emulate is checked against AWS's own request model and listed as
"recorded, not emulated" (`GET /ringfence/recorded`). An operation that neither knows is refused with status 501.
Who may call what is decided in `authorization`: the operator's key, or a session under IAM's rules.
"""

from __future__ import annotations
