"""Who may use which tool: user → groups → role → capability → tool → credential, decided outside of the model.

Trust zone: control side.
"""

from ringfence.access.decision import Decision, Reason, decide

__all__ = ["Decision", "Reason", "decide"]
