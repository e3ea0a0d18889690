"""The contraction planner: every expensive contraction of the packages goes through it."""

from .choose import Repeated as Repeated
from .choose import Work as Work
from .choose import calibrate as calibrate
from .choose import calibrated as calibrated
from .choose import cheapest as cheapest
from .choose import tune as tune
from .cost import Rates as Rates
from .expression import network as network
from .network import Constant as Constant
from .network import Network as Network
from .pieces import Pieces as Pieces
from .plan import Plan as Plan
from .plan import Step as Step
from .planning import contract as contract
from .planning import plan as plan
from .stages import Stage as Stage
from .stages import StagedPlan as StagedPlan
from .stages import plan_stages as plan_stages
