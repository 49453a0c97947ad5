"""X-VLM from a file of its training: embeddings, and its cross encoder as pair scorer."""

import torch

from hypvl.encoders.huggingface_towers import HuggingFaceImageTower, HuggingFaceTextTower, load_tokenizer
from hypvl.encoders.text_huggingface import require_transformers
from hypvl.errors import CheckpointError
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.models.convert import lavis, xvlm
from hypvl.models.cross_encoder import CrossEncoder
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.foreign.lavis import TOKENIZER, fill, own_tokenizer
from hypvl.models.foreign.record import ForeignModel, about, small_files, weights_file
from hypvl.models.matching import CrossEncoderMatching

_CONTEXT = 40  # tokens of a text in its retrieval


def load(place: str, *, device: str | torch.device = "cpu") -> ForeignModel:
    """A ``.th`` or ``.pth`` file; its sizes are read from its weights, and nothing in it is executed.

    Raises:
        UserError: when transformers is not installed.
        CheckpointError: for another file, or one that lacks weights; what is missing is listed.
        DataError: when there is no tokenizer.
    """
    transformers = require_transformers()
    file = weights_file("xvlm", place)
    try:
        weights, sizes = xvlm.to_parts(load_checkpoint(file)["model"])
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from error
    model = CrossEncoder(sizes).eval()
    fill(model, weights, source=str(file))
    own = own_tokenizer(file)
    tokenizer = load_tokenizer(str(file.parent) if own else TOKENIZER, context_length=_CONTEXT)
    side = int(sizes.vision["img_size"])
    visual = HuggingFaceImageTower(
        model.vision_model,
        lambda trunk, pixels: trunk.forward_features(pixels).mean(dim=(1, 2)),  # type: ignore[operator]  # nn.Module
        width=int(sizes.text["encoder_hidden_size"]),
        image_size=side,
        processor=transformers.BlipImageProcessor.from_dict(lavis.processor_of(side)),
        source=place,
    )
    textual = HuggingFaceTextTower(
        model.text_encoder,
        lambda trunk, ids, mask: trunk(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0],
        width=int(sizes.text["hidden_size"]),
        tokenizer=tokenizer,
        vocab_size=int(sizes.text["vocab_size"]),
    )
    built = DualEncoder(
        visual,
        textual,
        visual_head=lambda _: model.vision_proj,
        textual_head=lambda _: model.text_proj,
        geometry=Sphere(),
        scorer=Cosine(),
    )
    built.pair_scorer = CrossEncoderMatching(
        model, visual=visual, tokenizer=tokenizer, fill_id=textual.fill_id, name="X-VLM's cross encoder"
    )
    files = [file, *(small_files(file.parent) if own else [])]
    record = about("X-VLM", "transformers", id=place, architecture="X-VLM", files=files)
    return ForeignModel(built, record, library_model=model)
