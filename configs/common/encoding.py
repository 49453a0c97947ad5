"""How evaluations run images and texts through a model."""

from hypvl.config import LazyCall as L
from hypvl.embedding.encode import Encoding

encoding = L(Encoding)(batch_size=256, num_workers=None, amp=False, progress=True, max_bad_fraction=0.1)
