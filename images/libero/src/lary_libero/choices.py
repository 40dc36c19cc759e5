"""What can be chosen, for a command line that is shown where numpy is not."""

AGENT, WRIST = "agentview", "robot0_eye_in_hand"
CAMERAS = (AGENT, WRIST)
DIMENSIONS = {
    "lighting": ("brightness",),
    "camera": ("camera_x", "camera_y", "camera_z"),
    "distractor": ("distractor_x", "distractor_y"),
}
"""Perturbation -> what it moves: a factor on all lights; all cameras, in metres; a ball above the table, in metres."""
POLICY_NAMES = ("scripted", "noisy", "random", "zero")
