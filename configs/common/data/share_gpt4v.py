"""ShareGPT4V, the COCO images: long captions (248 tokens) and short ones, images cropped as CLIP does."""

from hypvl.config import LazyCall as L
from hypvl.data.share_gpt4v import ShareGPT4V
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import ResizeCenterCrop

dataset = L(ShareGPT4V)(
    path="datasets/sharegpt4v/share-captioner_coco_lcs_sam_1246k_1107.json",
    images_root="datasets/sharegpt4v/data",
    split="train",
    subset="coco",
    image_transform=L(ResizeCenterCrop)(size="${model.visual.image_size}"),
    tokenizer=L(get_tokenizer)(context_length="${model.textual.context_length}"),
    max_bad_fraction=0.1,
)
