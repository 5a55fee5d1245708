"""Root file systems: what of the host a container sees, and what lies over it."""
