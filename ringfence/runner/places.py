"""Where the control side of a cluster is: what its component and its process must agree on.

Trust zone: control side.
"""

from __future__ import annotations

from pathlib import Path

# Where it keeps what is its own: a volume.
STATE_FOLDER = Path("/var/lib/ringfence")
# Where sandboxes find the model gateway.
GATEWAY_PORT = 14000
# The label of its pods: Services, NetworkPolicies and the secrets store's door are by this one alone.
POD_LABELS = {"app.kubernetes.io/name": "ringfence"}
