"""Who may ask a queue for what.

Everybody may look, and everybody may stop: whoever sees smoke needs no key. Users may queue and start scans. Staff may
also move any axis, by the plan ``move``, and take the environment down.
"""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["GROUPS", "Group", "group_permissions", "may", "needed"]

Group = Literal["read_only", "users", "staff"]
GROUPS: tuple[Group, ...] = ("read_only", "users", "staff")
"""From least to most."""

LOOK = frozenset(
    {
        "ping", "status", "config_get", "queue_get", "queue_item_get", "plans_allowed", "plans_existing",
        "devices_allowed", "devices_existing", "permissions_get", "history_get", "task_status", "task_result",
        "re_runs", "re_metadata", "lock_info", "held_get",
    }
)  # fmt: skip
"""Methods that change nothing."""
STOP = frozenset({"queue_stop", "re_pause", "re_stop", "re_abort", "re_halt"})
"""Methods that only stop what goes on; they are open to everybody, also while the queue is locked."""
QUEUE = frozenset(
    {
        "queue_item_add", "queue_item_add_batch", "queue_item_update", "queue_item_remove", "queue_item_remove_batch",
        "queue_item_move", "queue_item_move_batch", "queue_item_execute", "queue_clear", "queue_start",
        "queue_stop_cancel", "queue_autostart", "queue_mode_set", "re_resume", "environment_open", "held_retry",
        "held_drop",
    }
)  # fmt: skip
"""What users may as well."""
STAFF = frozenset(
    {
        "environment_close", "environment_destroy", "environment_update", "history_clear", "permissions_reload",
        "lock", "unlock", "kernel_interrupt",
    }
)  # fmt: skip
"""What staff may as well. What is nowhere here is refused to all: code and permissions do not come over a socket."""


def needed(method: str) -> Group | None:
    """Return the least group that may call a method; None where nobody may."""
    if method in LOOK or method in STOP:
        return "read_only"
    if method in QUEUE:
        return "users"
    return "staff" if method in STAFF else None


def may(group: Group, method: str) -> bool:
    """Whether a group may call a method."""
    least = needed(method)
    return least is not None and GROUPS.index(group) >= GROUPS.index(least)


def group_permissions() -> dict[str, Any]:
    """Return the content of the queue server's ``user_group_permissions.yaml``."""
    everything: list[Any] = [":.*"]
    return {
        "user_groups": {
            "root": {
                "allowed_plans": [None],
                "forbidden_plans": [":^_"],
                "allowed_devices": [None],
                "forbidden_devices": [":^_:?.*"],
                "allowed_functions": [],
                "forbidden_functions": everything,
            },
            **{
                group: {
                    "allowed_plans": everything,
                    "forbidden_plans": [None] if group == "staff" else [":^move$"],
                    "allowed_devices": [":?.*:depth=2"],
                    "forbidden_devices": [None],
                    "allowed_functions": [],
                    "forbidden_functions": everything,
                }
                for group in GROUPS
            },
        }
    }
