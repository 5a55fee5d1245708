"""Profiles: what ``--profile NAME`` stands for."""

from __future__ import annotations

PROFILES: dict[str, dict[str, str]] = {
    "grade": {
        "net": "none",
        "timeout": "10s",
        "cpu_time": "10s",
        "pids": "64",
        "mem": "512M",
        "max_output": "1M",
    },
    "teach": {"timeout": "60s", "mem": "1G", "pids": "128"},
    "strict": {
        "net": "none",
        "read_only": "true",
        "pids": "32",
        "mem": "256M",
        "timeout": "30s",
        "max_output": "256K",
    },
}
"""What ``--profile`` stands for, by keyword; ``true`` is a flag that is set."""


def profiles_help() -> str:
    """Return what ``--help`` says of the profiles."""
    spelled = []
    for name, settings in PROFILES.items():
        words = [
            f"--{key.replace('_', '-')}" + ("" if value == "true" else f" {value}") for key, value in settings.items()
        ]
        spelled.append(f"{name} = {' '.join(words)}")
    return "a set of defaults, which any other option overrides: " + "; ".join(spelled)
