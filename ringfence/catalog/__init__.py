"""Tools and user roles as declared in `catalog/`: typed models, the loader and the JSON Schemas for editors."""

from ringfence.catalog.loader import load
from ringfence.catalog.model import Capability, Catalog, Egress, Grant, Limits, Roles, Source, Tool, User, UserRole

__all__ = ["Capability", "Catalog", "Egress", "Grant", "Limits", "Roles", "Source", "Tool", "User", "UserRole", "load"]
