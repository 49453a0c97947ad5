"""Flickr8k-Expert and Flickr8k-CF: do caption scores agree with people?"""

from hypvl.config import LazyCall as L
from hypvl.datasets.candidate_captions import flickr8k
from hypvl.evaluation.clip_score_correlation import CaptionCorrelation

from ..encoding import encoding as encoding

roots = {"flickr8k": "./datasets/flickr8k"}
evaluate = {
    name: L(CaptionCorrelation)(
        dataset=L(flickr8k)(root="${roots.flickr8k}", ratings=ratings),
        kendall=kendall,
        encoding="${encoding}",
    )
    for name, ratings, kendall in (("flickr8k_expert", "expert", "c"), ("flickr8k_cf", "crowdflower", "b"))
}
