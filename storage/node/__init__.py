"""The node's devices, filesystems and mounts: all that needs root is here."""
