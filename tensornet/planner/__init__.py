"""The contraction planner: every expensive contraction of the packages goes through it."""

from .cost import Rates as Rates
from .network import Network as Network
from .plan import Plan as Plan
from .plan import Step as Step
from .planning import contract as contract
from .planning import plan as plan
from .stages import StagedPlan as StagedPlan
from .stages import plan_stages as plan_stages
