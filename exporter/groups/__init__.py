"""Which pod, container or unit a process belongs to. Pure."""
