"""Policies in closed loop: what a policy and a simulator have to be, and how they talk to each other."""

from lary_policy.policy import EpisodeStart as EpisodeStart
from lary_policy.policy import Policy as Policy
from lary_policy.policy import Space as Space
from lary_policy.simulator import Simulator as Simulator
from lary_policy.simulator import SimulatorError as SimulatorError
from lary_policy.simulator import Step as Step
