"""Film a recorded episode: from its simulator states, or by playing its actions again."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.envs import load_suite
from traces.errors import FileExists, UnknownName, UserError
from traces.reader import TraceReader

if TYPE_CHECKING:
    from engine.envs.tabletop import TabletopEnv

TOLERANCE_M = 1e-9


def film(trace: TraceReader, episode: int, camera: str = "agentview") -> list[np.ndarray]:
    """Put up the scene of one episode and return what a camera sees.

    Recorded simulator states are shown as they are. Without them the actions are played again, and
    must lead the hand where they led it before.

    Args:
        trace: a recording of a suite that is installed here.
        episode: row of episodes/.
        camera: name of a camera of the scene.

    Returns:
        A picture (256, 256, 3) uint8 before each of the T actions, and one after the last.

    Raises:
        UnknownName: no such suite or camera.
        UserError: the hand does not go where it went.
    """
    columns = ("suite", "task_id", "init_state", "scene_seed", "final_ee_pos")
    row = {name: values[episode] for name, values in trace.episodes(*columns).items()}
    suite = load_suite(str(row["suite"]))
    if camera not in suite.CAMERAS.values():
        raise UnknownName("camera", camera, suite.CAMERAS.values())
    env = suite.make_env(int(row["task_id"]))
    env.cameras_on = False
    try:
        state = {"init_state": int(row["init_state"])}
        observation, _ = env.reset(seed=int(row["scene_seed"]), options=state)
        if trace.has_sim_states:
            return [_shown(env, state, camera) for state in trace.sim_path(episode)]
        steps = trace.steps("action", "ee_pos", episode=episode)
        path_m, frames = [_hand(observation)], [env.render(camera).copy()]
        for action in steps["action"]:
            observation, *_ = env.step(action)
            path_m.append(_hand(observation))
            frames.append(env.render(camera).copy())
    finally:
        env.close()
    _check_path(trace, episode, np.array(path_m), np.vstack([steps["ee_pos"], row["final_ee_pos"]]))
    return frames


def _shown(env: "TabletopEnv", state: np.ndarray, camera: str) -> np.ndarray:
    env.set_sim_state(state)
    return env.render(camera).copy()


def write_video(path: Path, frames: Sequence[np.ndarray], hz: float) -> None:
    """Write pictures (H, W, 3) uint8 as .mp4 or .gif; nothing is left behind when it fails.

    Raises:
        FileExists: there is a file of that name.
    """
    import imageio.v3 as iio

    if path.exists():
        raise FileExists(path)
    timing = {"fps": hz} if path.suffix == ".mp4" else {"duration": 1000 / hz, "loop": 0}
    try:
        iio.imwrite(path, np.stack(frames), **timing)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _hand(observation: dict) -> np.ndarray:
    return observation["robot_state"]["eef"]["pos"]


def _check_path(trace: TraceReader, episode: int, now: np.ndarray, was: np.ndarray) -> None:
    """Compare the hand's path (T+1, 3) with the recorded one."""
    apart_m = np.abs(now - was).max(axis=1)
    if not (apart_m <= TOLERANCE_M).all():
        step = int(np.argmax(~(apart_m <= TOLERANCE_M)))
        raise UserError(
            f"episode {episode} of {trace.path} cannot be filmed again: played here, its actions "
            f"lead {apart_m[step]:.2g} m away from the recorded path at step {step}; record with "
            "--video or --keep frames"
        )
