"""One arm of an experiment: what is done inside the policy, what it is told, and in which role.

An effect means something beside its controls only: the same scenes and the same noise without it
(baseline), with neurons drawn by chance (random), with the same neurons where they cannot act
(null), and with words in their place (prompt).
"""

import re
from dataclasses import dataclass

from traces.intervention import Intervention

UNCHANGED = "{}"
ROLES = ("baseline", "prompt", "steered", "random", "null")
CONTROLS = ("random", "null")
"""Roles that an intervention takes by `provenance["control"]`."""
WITHOUT_DOSE = ("zero_ablation", "mean_ablation", "patch")
"""Operators whose coefficient does nothing."""


@dataclass(frozen=True)
class Condition:
    """What one recording does; the default is the baseline."""

    intervention: Intervention | None = None
    prompt: str = UNCHANGED
    """What the policy is told: {} stands for the task's own instruction, {other} for the same
    task with another object."""

    @property
    def role(self) -> str:
        """One of `ROLES`."""
        if self.intervention is None:
            return "baseline" if self.prompt == UNCHANGED else "prompt"
        control = self.intervention.provenance.get("control")
        return control if control in CONTROLS else "steered"

    @property
    def alpha(self) -> float | None:
        """The dose; None where there is none."""
        if self.intervention is None or self.intervention.operator in WITHOUT_DOSE:
            return None
        return self.intervention.coefficient

    @property
    def label(self) -> str:
        """How it is called on screen: `baseline`, `fast α=8`, `told "... quickly"`."""
        parts = [self.intervention.name] if self.intervention else []
        if self.prompt != UNCHANGED:
            parts.append(f'told "{self.prompt.replace(UNCHANGED, "...")}"')
        if self.alpha is not None:
            parts.append(f"α={self.alpha:g}")
        return " ".join(parts) or "baseline"

    @property
    def slug(self) -> str:
        """The label as a part of a file's name."""
        words = re.findall(r"[\w.+-]+", self.label.replace("...", "").replace("α=", "a"))
        return "-".join(words)

    def told(self, instruction: str, other: str) -> str:
        """Return what the policy is told.

        Args:
            instruction: the task's own sentence.
            other: the sentence that names another object.
        """
        return self.prompt.replace("{other}", other).replace(UNCHANGED, instruction).strip()


BASELINE = Condition()
