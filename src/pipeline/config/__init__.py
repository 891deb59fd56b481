"""From YAML and `key=value` to a checked dataclass."""

from pipeline.config.resolve import (
    COMMAND_LINE,
    Resolved,
    is_file_name,
    profile_path,
    profiles,
    resolve,
    split_override,
)

__all__ = ["COMMAND_LINE", "Resolved", "is_file_name", "profile_path", "profiles", "resolve", "split_override"]
