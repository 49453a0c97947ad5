"""CE-CLIP: hard negatives among the keys, kept off their captions (IMC) and ranked below them (CMR).

As published but for the denominator and the thresholds of the rank term, which count valid negatives only: the
published ones are terms.cross_modal_rank.denominator=all and .positives=all.
"""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.cross_modal_rank import CrossModalRank
from hypvl.losses.hard_negative import HardNegativeContrastive
from hypvl.losses.intra_modal import IntraModal

objective = L(Objective)(
    terms=dict(
        contrastive=L(HardNegativeContrastive)(invalid_negatives="keep"),
        cross_modal_rank=L(CrossModalRank)(
            kind="mean", upper_bound=10.0, denominator="valid", positives="valid", reset="epoch"
        ),
        intra_modal=L(IntraModal)(variant="fixed", invalid_negatives="keep"),
    ),
    weights=dict(contrastive=1.0, cross_modal_rank=0.2, intra_modal=0.3),
)
