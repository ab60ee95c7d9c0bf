"""Makes traces: environments, policies, steering, recording (torch, mujoco, lerobot)."""
