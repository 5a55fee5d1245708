"""The kernel's interface: system calls, constants, namespaces, capabilities, seccomp, mounts; standard library only."""
