"""Small resource providers for the embedded target; the real engine talks to them as it does to official plugins."""
