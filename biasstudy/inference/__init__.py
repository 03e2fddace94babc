"""What may be concluded: contrasts between arms, their interval, and a verdict in words.

`contrasts` estimates, `scales` and `excess` ask whether it is more than lost accuracy, `intervals`
has the uncertainty of plain arrays, `verdicts` the words, `secondary` other metrics than the
headline; `dynamics` and `conjecture` ask where bias is going.
"""

from .contrasts import CONTRASTS as CONTRASTS
from .contrasts import HEADLINE as HEADLINE
from .contrasts import PARTS_OF_R as PARTS_OF_R
from .contrasts import all_contrasts as all_contrasts
from .contrasts import contrast as contrast
from .contrasts import curve as curve
from .contrasts import decompose as decompose
from .contrasts import difference as difference
from .contrasts import headline as headline
from .contrasts import headline_weights as headline_weights
from .excess import Excess as Excess
from .excess import all_excesses as all_excesses
from .excess import beyond as beyond
from .excess import excess as excess
from .intervals import Estimate as Estimate
from .intervals import holm as holm
from .scales import growth as growth
from .scales import logit_contrast as logit_contrast
from .scales import relative_contrast as relative_contrast
from .secondary import SECONDARY as SECONDARY
from .secondary import secondary_of_settings as secondary_of_settings
from .verdicts import QUARTER as QUARTER
from .verdicts import SEEDS_FOR_VERDICT as SEEDS_FOR_VERDICT
from .verdicts import Change as Change
from .verdicts import Feedback as Feedback
from .verdicts import Verdict as Verdict
from .verdicts import change as change
from .verdicts import feedback as feedback
from .verdicts import sentence as sentence
from .verdicts import sentences as sentences
from .verdicts import verdict as verdict
