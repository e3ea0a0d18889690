"""One training loop: any equinox module, any optax optimizer, resumed exactly after a kill."""

from .batches import Traced as Traced
from .loop import fit as fit
from .results import Fit as Fit
from .results import History as History
from .results import Interrupted as Interrupted
from .results import Report as Report
