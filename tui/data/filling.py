"""The groups of one update, episode by episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from tui.data.fields import number, whole
from tui.data.training import Group, Member
from tui.terminal import one_line

MOST_GROUPS = 4096
MOST_MEMBERS = 1024


class Filling:
    """Takes the episode and group events of an update; their fields may be odd."""

    def __init__(self, update: int) -> None:
        self.update = update
        self.played = 0
        """Episodes that have ended."""
        self._groups: dict[int, Group] = {}
        self._members: dict[int, list[Member | None]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def expect(self, n: int, size: int, attempt: int, task: str) -> None:
        """Add groups of which no episode has ended."""
        if 0 < size <= MOST_MEMBERS:
            for place in range(len(self), min(len(self) + n, MOST_GROUPS)):
                self._groups[place] = Group(self.update, place, max(0, attempt), task)
                self._members[place] = [None] * size

    def end(self, event: Mapping, task: str) -> None:
        """Add an episode."""
        place, member = whole(event.get("group")), whole(event.get("member"))
        if not (0 <= place < MOST_GROUPS and 0 <= member < MOST_MEMBERS):
            return
        group = self._groups.get(place)
        if group is None or group.scene_seed < 0:
            seed = whole(event.get("scene_seed"))
            group = group or Group(self.update, place)
            self._groups[place] = replace(group, task=task, scene_seed=seed)
        members = self._members.setdefault(place, [])
        members += [None] * (member + 1 - len(members))
        self.played += members[member] is None
        success, steps = event.get("success") is True, max(0, whole(event.get("n_steps"), 0))
        members[member] = _member(success, number(event.get("return")), steps)

    def judge(self, event: Mapping) -> None:
        """Add what the run says a group is worth."""
        place = whole(event.get("group"))
        if not 0 <= place < MOST_GROUPS:
            return
        values = event.get("advantages")
        known = [number(value) for value in values] if isinstance(values, list) else []
        self._groups[place] = replace(
            self._groups.get(place) or Group(self.update, place),
            attempt=max(0, whole(event.get("attempt"), 0)),
            judged=True,
            accepted=event.get("accepted") is True,
            reason=one_line(event.get("reason") or ""),
            values=() if None in known else tuple(known[:MOST_MEMBERS]),
        )

    def groups(self) -> tuple[Group, ...]:
        """Return them by their number."""
        return tuple(
            replace(group, members=tuple(self._members.get(place, ())))
            for place, group in sorted(self._groups.items())
        )


@lru_cache(maxsize=4096)
def _member(success: bool, total_return: float | None, n_steps: int) -> Member:
    """Return equal episodes as one object: a long run has hundreds of thousands."""
    return Member(success, total_return, n_steps)
