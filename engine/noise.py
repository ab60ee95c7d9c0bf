"""Noise that depends on what is drawn, never on when, where or beside what.

Every draw is named by (run seed, update, group, member, decision) and made by numpy's Philox on
the CPU, so the number of workers and the composition of a batch change nothing.
"""

from dataclasses import dataclass

import numpy as np

INITIAL, TRANSITION = 0, 1  # streams of one decision


@dataclass(frozen=True)
class NoiseKey:
    """Names the noise of one episode."""

    run_seed: int
    update: int = 0
    group: int = 0
    member: int = 0

    def __str__(self) -> str:
        return f"{self.run_seed}/{self.update}/{self.group}/{self.member}"

    def initial(self, decision: int, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal x_1 that the flow starts from, float32."""
        return self._normal(decision, INITIAL, shape)

    def transitions(self, decision: int, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal noise of the K stochastic transitions, float32, (K, ...)."""
        return self._normal(decision, TRANSITION, shape)

    def _normal(self, decision: int, stream: int, shape: tuple[int, ...]) -> np.ndarray:
        entropy = [self.run_seed, self.update, self.group, self.member, decision, stream]
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
        return generator.standard_normal(shape, dtype=np.float32)
