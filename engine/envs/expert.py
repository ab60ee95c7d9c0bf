"""A scripted expert for every `tabletop` task, at three speeds.

It is Markov: the action depends on the present state alone, so that a policy without memory can
imitate it, and it recovers from any disturbance by itself. It reads the simulator's state, which
the policy never sees.
"""

import numpy as np

from engine.envs.tabletop import BOWL_RADIUS, MAX_SPEED, OPENING, TabletopEnv

SPEED_OF = {"slow": 0.42, "normal": 0.68, "fast": 1.0}  # largest |velocity| of an action
CARRY_Z = 0.125  # m, grip height that clears cubes and bowl
GRASP_Z = 0.024  # m
PUSH_Z = 0.026  # m
STEP = MAX_SPEED / 20  # m moved by action 1.0 in one control step


def expert_action(
    env: TabletopEnv, speed: str = "normal", targets: tuple[str, ...] = ()
) -> np.ndarray:
    """(7,) float32 in [-1, 1]: what the expert does in the present state.

    Args:
        env: the environment, in whatever state it is.
        speed: a key of SPEED_OF.
        targets: colours to go for; those of the environment's own instruction if empty.
    """
    limit = SPEED_OF[speed]
    name = env.task.name
    colour = current_target(env, targets or env.targets)
    if name == "push_cube_to_zone":
        return _push(env, colour, limit)
    if name == "lift_cube":
        return _pick(env, colour, limit)
    return _place(env, colour, limit)


def current_target(env: TabletopEnv, targets: tuple[str, ...]) -> str:
    """The first of the colours that does not lie in the bowl yet; the last one if all do."""
    waiting = [colour for colour in targets if not env.in_bowl(colour)]
    return waiting[0] if waiting else targets[-1]


def _pick(env: TabletopEnv, colour: str, limit: float) -> np.ndarray:
    hand, cube = env.grip_pos(), env.cube_pos(colour)
    if env.holds(colour):
        return _move(hand, np.array([hand[0], hand[1], 0.20]), limit, close=True)
    beside = float(np.linalg.norm(hand[:2] - cube[:2]))
    if beside < 0.014 and hand[2] < cube[2] + 0.012:
        return _move(hand, hand, limit, close=True)
    open_enough = _opening(env) > 0.9 * OPENING
    floor = GRASP_Z if open_enough else CARRY_Z * 0.7
    height = cube[2] - 0.025 + floor + np.clip(3.0 * (beside - 0.012), 0.0, 0.09)
    return _move(hand, np.array([cube[0], cube[1], height]), limit, close=False)


def _place(env: TabletopEnv, colour: str, limit: float) -> np.ndarray:
    hand = env.grip_pos()
    bowl = env.data.body("bowl").xpos
    over = float(np.linalg.norm(env.cube_pos(colour)[:2] - bowl[:2]))
    if env.holds(colour):
        if over < 0.4 * BOWL_RADIUS and hand[2] > 0.075:
            return _move(hand, hand, limit, close=False)
        rising = hand[2] < 0.095 and over > 0.5 * BOWL_RADIUS
        target = hand if rising else bowl
        height = CARRY_Z + 0.03 * rising
        return _move(hand, np.array([target[0], target[1], height]), limit, close=True)
    if over < BOWL_RADIUS and env.cube_pos(colour)[2] < 0.14 and hand[2] > 0.06:
        return _move(hand, np.array([hand[0], hand[1], 0.15]), limit, close=False)
    return _pick(env, colour, limit)


def _push(env: TabletopEnv, colour: str, limit: float) -> np.ndarray:
    hand, cube = env.grip_pos(), env.cube_pos(colour)
    zone = env.data.body("zone").xpos
    along = (zone - cube)[:2] / max(float(np.linalg.norm((zone - cube)[:2])), 1e-6)
    offset = hand[:2] - cube[:2]
    behind = float(-offset @ along)
    aside = offset + behind * along  # (2,), the part across the way
    if 0.015 < behind < 0.085 and np.linalg.norm(aside) < 0.016 and hand[2] < 0.045:
        target = hand[:2] + 0.05 * along - 1.5 * aside
        return _move(hand, np.array([*target, PUSH_Z]), limit, close=True)
    start = cube[:2] - 0.062 * along
    miss = float(np.linalg.norm(hand[:2] - start))
    height = PUSH_Z + np.clip(3.0 * (miss - 0.010), 0.0, 0.075)
    blocked = hand[2] < 0.07 and miss > 0.02
    target = hand[:2] if blocked else start
    return _move(hand, np.array([*target, height + 0.02 * blocked]), limit, close=True)


def _move(hand: np.ndarray, target: np.ndarray, limit: float, *, close: bool) -> np.ndarray:
    velocity = 0.7 * (target - hand) / STEP
    size = float(np.linalg.norm(velocity))
    if size > limit:
        velocity *= limit / size
    return np.array([*velocity, 0.0, 0.0, 0.0, 1.0 if close else -1.0], np.float32)


def _opening(env: TabletopEnv) -> float:
    """Mean travel of the two fingers, m."""
    return float(np.mean([env.data.joint(f"{s}_finger").qpos[0] for s in ("left", "right")]))
