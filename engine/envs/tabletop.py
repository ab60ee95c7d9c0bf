"""Suite `tabletop`: four language-conditioned tasks for a Cartesian gripper, in MuJoCo.

The interface is LIBERO's as lerobot wraps it (`lerobot/envs/libero.py`): the same nested
observation, a 7-D action in [-1, 1] at 20 Hz, a sparse success reward, 50 fixed initial states a
task. Two differences: images are upright (LIBERO's are turned by 180 degrees), and the hand does
not rotate, so the three rotation entries of an action do nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from engine.gl import choose_backend
from traces.errors import UnknownName, UserError

choose_backend()
import mujoco  # noqa: E402  (the GL backend must be chosen first)

SUITE = "tabletop"
SCENE = Path(__file__).with_name("tabletop.xml")
CONTROL_HZ = 20
SUBSTEPS = 10  # of 5 ms each
MAX_SPEED = 0.5  # m/s at action 1.0, i.e. 2.5 cm per control step
OPENING = 0.05  # m each finger travels
HOME = np.array([-0.02, 0.0, 0.15])  # m, where an episode begins, give or take 3 cm
WORKSPACE = ((-0.24, -0.24, 0.018), (0.20, 0.24, 0.26))  # m, ends of the hand's three joints
JOINTS = {
    f"hand_{axis}": {"column": "ee_pos", "index": i, "range": [low, high], "unit": "m"}
    for i, (axis, low, high) in enumerate(zip("xyz", *WORKSPACE, strict=True))
}
"""Joints with mechanical ends, and where steps/ shows them; fingers rest at their ends anyway."""
IMAGE_SIZE = 64
N_INIT_STATES = 50
COLOURS = ("red", "green", "blue")
OBJECT_NAMES = (*(f"{colour}_cube" for colour in COLOURS), "bowl", "zone")
CAMERAS = {"image": "agentview", "image2": "wrist"}
CUBE_HALF = 0.025  # m
BOWL_RADIUS = 0.075  # m, inner
ZONE_RADIUS = 0.045  # m, a cube's centre must come this close
LIFT_HEIGHT = 0.10  # m
SIM_STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS  # time, qpos, qvel: all a step begins with


@dataclass(frozen=True)
class Task:
    """One task: its name, its instruction with colour slots and its horizon in control steps."""

    name: str
    instruction: str
    horizon: int
    n_targets: int = 1


TASKS = (
    Task("lift_cube", "pick up the {0} cube", 70),
    Task("push_cube_to_zone", "push the {0} cube to the purple zone", 100),
    Task("put_cube_in_bowl", "put the {0} cube in the bowl", 100),
    Task("put_two_cubes_in_bowl", "put the {0} cube and then the {1} cube in the bowl", 200, 2),
)


def task_id_of(name: str) -> int:
    """Index of a task given by its number or its name.

    Raises:
        UnknownName: there is no such task; near matches are listed.
    """
    names = [task.name for task in TASKS]
    if name in names:
        return names.index(name)
    if name.isdigit() and int(name) < len(TASKS):
        return int(name)
    raise UnknownName("task", name, [f"{i} ({n})" for i, n in enumerate(names)])


def make_env(task_id: int) -> "TabletopEnv":
    """One environment of the suite."""
    return TabletopEnv(task_id)


def sim_state_size() -> int:
    """Numbers in a simulator state."""
    return mujoco.mj_stateSize(mujoco.MjModel.from_xml_path(str(SCENE)), SIM_STATE)


def targets_of(task_id: int, init_state: int) -> tuple[str, ...]:
    """Colours that a task's instruction names, in order; the initial state decides them."""
    first = init_state % len(COLOURS)
    second = (first + 1 + (init_state // len(COLOURS)) % 2) % len(COLOURS)
    return (COLOURS[first], COLOURS[second])[: TASKS[task_id].n_targets]


def instruction_of(task_id: int, init_state: int) -> str:
    """The sentence for a task and an initial state."""
    return TASKS[task_id].instruction.format(*targets_of(task_id, init_state))


def other_instruction_of(task_id: int, init_state: int) -> str:
    """The sentence for the same task with other cubes: each colour is the next one."""
    named = [COLOURS.index(colour) for colour in targets_of(task_id, init_state)]
    others = [COLOURS[(i + 1) % len(COLOURS)] for i in named]
    return TASKS[task_id].instruction.format(*others)


class TabletopEnv(gym.Env):
    """One task of the suite.

    Observation (lerobot's LIBERO layout): `pixels` {`image`: agentview, `image2`: wrist}, each
    (64, 64, 3) uint8; `robot_state` {`eef` {`pos` (3) m world, `quat` (4) xyzw, `mat` (3, 3)},
    `gripper` {`qpos` (2) m, `qvel` (2) m/s}, `joints` {`pos` (3) m, `vel` (3) m/s}}.

    Action (7): hand velocity x, y, z (1.0 = 0.5 m/s, so 2.5 cm a step), three rotations without
    effect, and the gripper: > 0 closes, otherwise opens.

    `reset(seed=scene_seed, options={"init_state": i})`: the initial state fixes the colours named
    and where cubes and hand are; the scene seed moves bowl, zone and lamp. Initial states 0 to 49
    are the suite's own; behaviour cloning draws from 100,000 up and never sees these.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012

    def __init__(self, task_id: int = 0, render_size: int = 256):
        if not 0 <= task_id < len(TASKS):
            raise UserError(f"task {task_id} does not exist; {SUITE} has 0 to {len(TASKS) - 1}")
        self.task_id = task_id
        self.task = TASKS[task_id]
        self.render_mode = "rgb_array"
        self.model = mujoco.MjModel.from_xml_path(str(SCENE))
        self.data = mujoco.MjData(self.model)
        self._camera_renderer = mujoco.Renderer(self.model, IMAGE_SIZE, IMAGE_SIZE)
        self._renderers = [self._camera_renderer]
        self._render_size = render_size
        self._video_renderer: mujoco.Renderer | None = None
        self._finger_geoms = {
            self.model.geom(name).id for name in ("left_finger", "right_finger", "palm")
        }
        self._cube_geoms = {self.model.geom(f"{colour}_cube").id: colour for colour in COLOURS}
        self._rest = {name: self.model.body(name).pos.copy() for name in ("bowl", "zone")}
        self._lamp = self.model.light("lamp").diffuse.copy(), self.model.light("lamp").dir.copy()
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.observation_space = _observation_space()
        self.cameras_on = True
        """Off: observations come without `pixels`, for steps whose picture nobody needs."""
        self._t = 0

    # -- gymnasium ---------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict, dict]:
        """Put the scene of (initial state, scene seed) up; both default to 0."""
        super().reset(seed=seed)
        self.scene_seed = 0 if seed is None else seed
        self.init_state = (options or {}).get("init_state", 0)
        self._t = 0
        mujoco.mj_resetData(self.model, self.data)
        self._place_fixtures(np.random.default_rng([self.scene_seed, 77]))
        self._place_init_state(np.random.default_rng([self.task_id, self.init_state, 88]))
        for _ in range(SUBSTEPS):
            mujoco.mj_step(self.model, self.data)
        self.data.time = 0.0
        mujoco.mj_forward(self.model, self.data)
        return self._observation(), {"is_success": False, "task": self.instruction()}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """Advance 50 ms; reward 1 and `terminated` at the first successful step."""
        action = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise ValueError(f"expected 7 finite numbers as action, got {action}")
        self.data.ctrl[:3] = MAX_SPEED * action[:3]
        self.data.ctrl[3:] = 0.0 if action[6] > 0 else OPENING
        mujoco.mj_step(self.model, self.data, nstep=SUBSTEPS)
        mujoco.mj_forward(self.model, self.data)
        self._t += 1
        success = self.is_success()
        truncated = not success and self._t >= self.task.horizon
        info = {"is_success": success, "task_id": self.task_id}
        return self._observation(), float(success), success, truncated, info

    def render(self, camera: str = "agentview") -> np.ndarray:
        """A camera at video size, (256, 256, 3) uint8 unless asked otherwise."""
        if self._video_renderer is None:
            self._video_renderer = mujoco.Renderer(self.model, self._render_size, self._render_size)
            self._renderers.append(self._video_renderer)
        self._video_renderer.update_scene(self.data, camera)
        return self._video_renderer.render()

    def close(self) -> None:
        """Free the GL contexts; closing twice is harmless."""
        while self._renderers:
            renderer = self._renderers.pop()
            # MuJoCo deletes the GL objects of whichever context is current. Rendering makes that
            # its own; without it, closing one environment spoils the pictures of another.
            renderer.render()
            renderer.close()

    def __del__(self):
        if hasattr(self, "_renderers"):
            self.close()

    # -- what the scene is -------------------------------------------------------------------

    @property
    def targets(self) -> tuple[str, ...]:
        """Colours the instruction names, in order."""
        return targets_of(self.task_id, self.init_state)

    def instruction(self) -> str:
        """The sentence for this initial state."""
        return instruction_of(self.task_id, self.init_state)

    def object_poses(self) -> np.ndarray:
        """(objects, 7): position in m, world frame, and quaternion xyzw; order OBJECT_NAMES."""
        bodies = [self.data.body(name) for name in OBJECT_NAMES]
        return np.array([np.concatenate([b.xpos, np.roll(b.xquat, -1)]) for b in bodies])

    def sim_state(self) -> np.ndarray:
        """(S,) MuJoCo's full physics state: time [s], joint positions and velocities [m, rad]."""
        state = np.empty(mujoco.mj_stateSize(self.model, SIM_STATE))
        mujoco.mj_getState(self.model, self.data, state, SIM_STATE)
        return state

    def set_sim_state(self, state: np.ndarray) -> None:
        """Put the scene as it was, to look at it; `reset` with its seeds places the fixtures.

        Raises:
            ValueError: not a state (S,) of this scene.
        """
        if np.shape(state) != (mujoco.mj_stateSize(self.model, SIM_STATE),):
            raise ValueError(f"not a state of this scene: an array of shape {np.shape(state)}")
        mujoco.mj_setState(self.model, self.data, np.asarray(state, np.float64), SIM_STATE)
        mujoco.mj_forward(self.model, self.data)

    def cube_pos(self, colour: str) -> np.ndarray:
        """(3,) m, world frame."""
        return self.data.body(f"{colour}_cube").xpos.copy()

    def grip_pos(self) -> np.ndarray:
        """(3,) m, world frame: the point between the finger tips."""
        return self.data.site("grip").xpos.copy()

    def project(self, camera: str, points: np.ndarray) -> np.ndarray:
        """Where a camera sees world points (n, 3) m; NaN behind it.

        Returns:
            (n, 2) right and down from the top left corner in picture widths, [0, 1) inside.
        """
        pose = self.data.camera(camera)
        focal = 1 / np.tan(np.radians(self.model.camera(camera).fovy[0]) / 2)
        right, up, back = ((points - pose.xpos) @ pose.xmat.reshape(3, 3)).T
        depth = np.where(back < 0, -back, np.nan)
        return np.stack([1 + focal * right / depth, 1 - focal * up / depth], axis=1) / 2

    def finger_contact(self) -> tuple[bool, float]:
        """Whether the hand touches a cube, and the summed normal force in N."""
        force, total = np.zeros(6), 0.0
        for i in range(self.data.ncon):
            contact = self.data.contact[i]
            pair = {int(contact.geom1), int(contact.geom2)}
            if pair & self._finger_geoms and pair & self._cube_geoms.keys():
                mujoco.mj_contactForce(self.model, self.data, i, force)
                total += abs(force[0])
        return total > 0.0, total

    def holds(self, colour: str) -> bool:
        """Whether both fingers touch the cube of that colour."""
        cube = self.model.geom(f"{colour}_cube").id
        fingers = {self.model.geom(f"{side}_finger").id for side in ("left", "right")}
        touching = set()
        for i in range(self.data.ncon):
            pair = {int(self.data.contact[i].geom1), int(self.data.contact[i].geom2)}
            if cube in pair:
                touching |= pair & fingers
        return touching == fingers

    def in_bowl(self, colour: str) -> bool:
        """Whether the cube lies in the bowl and no finger touches it."""
        cube, bowl = self.cube_pos(colour), self.data.body("bowl").xpos
        inside = np.linalg.norm(cube[:2] - bowl[:2]) < BOWL_RADIUS and cube[2] < 0.09
        return bool(inside) and not self._touched(colour)

    def is_success(self) -> bool:
        """The sparse success of the task, judged on the present state alone."""
        first = self.targets[0]
        if self.task.name == "lift_cube":
            return bool(self.cube_pos(first)[2] > LIFT_HEIGHT) and self.holds(first)
        if self.task.name == "push_cube_to_zone":
            offset = self.cube_pos(first) - self.data.body("zone").xpos
            return bool(np.linalg.norm(offset[:2]) < ZONE_RADIUS and offset[2] < 0.04)
        return all(self.in_bowl(colour) for colour in self.targets)

    def _touched(self, colour: str) -> bool:
        cube = self.model.geom(f"{colour}_cube").id
        for i in range(self.data.ncon):
            pair = {int(self.data.contact[i].geom1), int(self.data.contact[i].geom2)}
            if cube in pair and pair & self._finger_geoms:
                return True
        return False

    # -- reset and observation ---------------------------------------------------------------

    def _place_fixtures(self, rng: np.random.Generator) -> None:
        for name, rest in self._rest.items():
            self.model.body(name).pos[:2] = rest[:2] + rng.uniform(-0.02, 0.02, 2)
        diffuse, direction = self._lamp
        self.model.light("lamp").diffuse[:] = diffuse * rng.uniform(0.8, 1.15)
        self.model.light("lamp").dir[:] = direction
        self.model.light("lamp").dir[:2] += rng.uniform(-0.15, 0.15, 2)

    def _place_init_state(self, rng: np.random.Generator) -> None:
        for colour, xy in zip(COLOURS, self._cube_layout(rng), strict=True):
            yaw = rng.uniform(-0.15, 0.15)
            pose = [*xy, CUBE_HALF, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
            self.data.joint(f"{colour}_cube").qpos[:] = pose
        hand = HOME + rng.uniform(-0.03, 0.03, 3)
        for axis, value in zip("xyz", hand, strict=True):
            self.data.joint(f"hand_{axis}").qpos[:] = value
        for side in ("left", "right"):
            self.data.joint(f"{side}_finger").qpos[:] = OPENING
        self.data.ctrl[3:] = OPENING

    def _cube_layout(self, rng: np.random.Generator) -> np.ndarray:
        """(3, 2) m: cubes in the near half, clear of each other; the way to the zone is free."""
        while True:
            xy = rng.uniform([0.01, -0.15], [0.13, 0.15], (len(COLOURS), 2))
            gaps = np.linalg.norm(xy[:, None] - xy[None], axis=-1)[np.triu_indices(len(xy), 1)]
            if gaps.min() > 0.115 and (
                self.task.name != "push_cube_to_zone" or self._way_is_clear(xy)
            ):
                return xy

    def _way_is_clear(self, xy: np.ndarray) -> bool:
        """Whether the named cube can be pushed to the zone without meeting another one."""
        pushed = COLOURS.index(self.targets[0])
        if xy[pushed, 1] < -0.04:  # the bowl would be in the hand's way
            return False
        start, end = xy[pushed], self._rest["zone"][:2]
        along = (end - start) / np.linalg.norm(end - start)
        for other in np.delete(xy, pushed, axis=0):
            s = (other - start) @ along
            beside = np.linalg.norm(other - start - s * along)
            if s > -0.13 and beside < 0.085:
                return False
        return True

    def _observation(self) -> dict:
        site = self.data.site("grip")
        quat = np.empty(4)
        mujoco.mju_mat2Quat(quat, site.xmat)
        fingers = [self.data.joint(f"{side}_finger") for side in ("left", "right")]
        axes = [self.data.joint(f"hand_{axis}") for axis in "xyz"]
        pixels = {"pixels": self._pixels()} if self.cameras_on else {}
        return pixels | {
            "robot_state": {
                "eef": {
                    "pos": site.xpos.copy(),
                    "quat": np.roll(quat, -1),
                    "mat": site.xmat.reshape(3, 3).copy(),
                },
                "gripper": {
                    "qpos": np.array([fingers[0].qpos[0], -fingers[1].qpos[0]]),
                    "qvel": np.array([fingers[0].qvel[0], -fingers[1].qvel[0]]),
                },
                "joints": {
                    "pos": np.array([joint.qpos[0] for joint in axes]),
                    "vel": np.array([joint.qvel[0] for joint in axes]),
                },
            },
        }

    def _pixels(self) -> dict[str, np.ndarray]:
        pixels = {}
        for key, camera in CAMERAS.items():
            self._camera_renderer.update_scene(self.data, camera)
            pixels[key] = self._camera_renderer.render()
        return pixels


def _observation_space() -> spaces.Dict:
    def real(*shape: int) -> spaces.Box:
        return spaces.Box(-np.inf, np.inf, shape, np.float64)

    image = spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    return spaces.Dict(
        {
            "pixels": spaces.Dict({"image": image, "image2": image}),
            "robot_state": spaces.Dict(
                {
                    "eef": spaces.Dict({"pos": real(3), "quat": real(4), "mat": real(3, 3)}),
                    "gripper": spaces.Dict({"qpos": real(2), "qvel": real(2)}),
                    "joints": spaces.Dict({"pos": real(3), "vel": real(3)}),
                }
            ),
        }
    )
