"""Authorization of the embedded AWS: every call is authenticated, and a session's call is decided by IAM's rules.

moto's own check looks at actions alone: it leaves out Resource, Condition, boundaries and session policies. So a call
first passes here: Signature Version 4 against the operator's key or an issued session; the operation mapped to IAM
actions, resource ARNs and condition keys; `ringfence.iam.evaluate` over the role's policies as they are in moto now, its
boundary and the session's policies. What isn't mapped, parsed or known is denied.

It is our evaluator in front of an emulator: a good test of documents and of the broker, and no proof of what AWS
decides. Resource policies other than trust policies (buckets, keys, queues), service control policies and AWS's delay in
applying changes are not emulated.
"""

from ringfence.local.aws_server.authorization.gate import Authorization

__all__ = ["Authorization"]
