"""What's Up, NegBench, CREPE, SPEC, SVO-Probes and MMVP-VLM: what their readers make of their files."""

import json
from pathlib import Path

import pytest

from hypvl.datasets.composition.choices import CaptionQuery, Choice, Group
from hypvl.datasets.composition.crepe import crepe
from hypvl.datasets.composition.mmvp_vlm import mmvp_vlm
from hypvl.datasets.composition.negbench import negbench
from hypvl.datasets.composition.spec import PARTS, spec_captions, spec_images
from hypvl.datasets.composition.svo_probes import svo_probes
from hypvl.datasets.composition.whatsup import whatsup
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError, MissingDataError
from hypvl.evaluation.foil_accuracy import CaptionChoice
from tests.evaluation.fakes import FakeModel, FakeTokenizer
from tests.evaluation.miniatures import compositionality


def test_whatsup_has_pairs_and_sets_of_images_of_the_same_objects(tmp_path: Path) -> None:
    compositionality.whatsup(tmp_path)
    data = whatsup(tmp_path / "whatsup", part="controlled_images")
    assert data.choices[0] == Choice(0, "a red mug", ("a blue mug", "a green mug"), "left_of")
    assert data.joint == {"pair_accuracy": [[0, 1], [2, 3]], "set_accuracy": [[0, 1, 2, 3]]}
    assert whatsup(tmp_path / "whatsup", part="controlled_clevr").joint == {"pair_accuracy": [[0, 1]]}
    metrics = CaptionChoice(data, encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer())(
        FakeModel()
    ).metrics
    assert metrics["pair_accuracy"] == metrics["set_accuracy"] == metrics["accuracy_on"] == 100.0
    assert metrics["pair_accuracy_chance"] == pytest.approx(100 / 9)
    assert metrics["set_accuracy_chance"] == pytest.approx(100 / 81)


def test_whatsup_of_coco_and_visual_genome_has_ids(tmp_path: Path) -> None:
    compositionality.whatsup(tmp_path)
    coco = whatsup(tmp_path / "whatsup", part="coco_qa_two_obj", images=tmp_path / "coco" / "val2017")
    assert coco.choices[0] == Choice(0, "a red dog", ("a green dog",), "coco_qa_two_obj")
    assert coco.keys[0] == "000000085329.jpg" and coco.joint == {}
    assert whatsup(tmp_path / "whatsup", part="vg_qa_one_obj").keys == ["2.jpg", "3.jpg"]


def test_whatsup_names_what_is_missing_or_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="part: got 'a'; expected 'controlled_images'"):
        whatsup(tmp_path, part="a")  # type: ignore[arg-type]
    with pytest.raises(MissingDataError, match=r"vg_qa_one_obj\.json: is not there"):
        whatsup(tmp_path, part="vg_qa_one_obj")
    (tmp_path / "vg_qa_one_obj.json").write_text('[["a.jpg", "x", "y"]]')
    with pytest.raises(DataError, match=r"entry 0: expected \[image id, true caption, false caption\]"):
        whatsup(tmp_path, part="vg_qa_one_obj")
    path = tmp_path / "controlled_clevr_dataset.json"
    path.write_text('[{"image_path": "a_on_b.jpeg", "caption_options": ["x"]}]')
    with pytest.raises(DataError, match="entry 0: expected a true caption and false ones"):
        whatsup(tmp_path, part="controlled_clevr")
    path.write_text('[{"image_path": "a_on_b.jpeg", "caption_options": ["x", "y"]}]')
    with pytest.raises(MissingDataError, match="its only image is not there"):
        whatsup(tmp_path, part="controlled_clevr")


def test_negbench_puts_the_right_answer_first(tmp_path: Path) -> None:
    compositionality.negbench(tmp_path)
    path = tmp_path / "negbench" / "COCO_val_mcq_llama3.1_rephrased.csv"
    data = negbench(path, images=tmp_path / "coco" / "val2017")
    assert data.choices[0] == Choice(0, "a red dog", ("a blue dog", "a green dog", "no dog"), "positive")
    assert data.choices[1].caption == "a green dog and no cat" and data.choices[1].kind == "hybrid"
    path.write_text("image_path,correct_answer,caption_0,caption_1,caption_2,caption_3\na.jpg,4,a,b,c,d\n")
    with pytest.raises(DataError, match="line 2: has correct_answer '4'; expected 0"):
        negbench(path, images=tmp_path)
    path.write_text("image_path,correct_answer,caption_0,caption_1,caption_2,caption_3\na.jpg,3,a,b,c,d\n")
    with pytest.raises(MissingDataError, match="its only image is not there"):
        negbench(path, images=tmp_path)


def test_crepe_reads_lists_of_texts_and_boxes(tmp_path: Path) -> None:
    compositionality.crepe(tmp_path)
    data = crepe(tmp_path / "crepe", negatives="atom", images=tmp_path / "vg")
    assert data.choices[0] == Choice(0, "a red dog", ("a green dog", "a dog's blue hat"), "complexity_4")
    assert data.images[0].shape == (3, 4, 5) and data.means == {
        "macro_accuracy": ["complexity_4", "complexity_5"]
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2,1,1,5,4,a dog,\"__import__('os').getcwd()\"", "expected hard_negs, a list of texts"),
        ("2,1,1,5,4,a dog,[]", "expected hard_negs, a list of texts"),
        ("2,1,x,5,4,a dog,\"['a']\"", "has no whole number 'y'; got 'x'"),
    ],
)
def test_crepe_names_the_wrong_row(row: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "prod_vg_hard_negs_swap_all.csv"
    path.write_text(f"image_id,x,y,width,height,caption,hard_negs\n{row}\n")
    with pytest.raises(DataError, match=rf"line 2: {message}"):
        crepe(tmp_path, negatives="swap", images=tmp_path)


def test_crepe_without_its_files_or_images(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"prod_vg_hard_negs_negate_all\.csv: is not there"):
        crepe(tmp_path, negatives="negate", images=tmp_path)
    (tmp_path / "prod_vg_hard_negs_negate_all.csv").write_text(
        "image_id,x,y,width,height,caption,hard_negs\n2,0,0,5,4,a dog,\"['no dog']\"\n"
    )
    with pytest.raises(MissingDataError, match="put Visual Genome's images there"):
        crepe(tmp_path, negatives="negate", images=tmp_path)


def test_spec_chooses_captions_and_images(tmp_path: Path) -> None:
    compositionality.spec(tmp_path)
    captions, images = spec_captions(tmp_path / "spec"), spec_images(tmp_path / "spec", parts=["count"])
    assert captions.choices[1] == Choice(1, "green", ("red", "blue"), "absolute_size")
    assert captions.means == {"macro_accuracy": list(PARTS)} and len(captions.choices) == 18
    assert images.queries[2] == CaptionQuery("blue", 2, (0, 1), "count")
    assert images.keys == ["count/images/a.jpg", "count/images/b.jpg", "count/images/c.jpg"]


def test_spec_names_what_is_missing_or_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"parts: got \['size'\]; expected some of absolute_size, "):
        spec_captions(tmp_path, parts=["size"])
    with pytest.raises(MissingDataError, match=r"image2text\.json: is not there"):
        spec_captions(tmp_path, parts=["count"])
    (tmp_path / "count").mkdir()
    for label, error in ((3, DataError), (1, MissingDataError)):
        entry = {"query": "red", "keys": ["a.jpg", "b.jpg"], "label": label}
        (tmp_path / "count" / "text2image.json").write_text(json.dumps([entry]))
        with pytest.raises(error, match=r"entry 0: expected|none of its 2 images"):
            spec_images(tmp_path, parts=["count"])


def test_svo_probes_leaves_out_and_counts_what_is_gone(tmp_path: Path) -> None:
    compositionality.svo_probes(tmp_path)
    data = svo_probes(tmp_path / "svo_probes")
    assert data.queries[1] == CaptionQuery("A green dog runs.", 1, (0,), "verb")
    assert [query.kind for query in data.queries] == ["subject", "verb", "object"]
    assert data.meta == {"left_out": 1} and data.keys == ["1.jpg", "2.png"]
    (tmp_path / "svo_probes" / "images" / "1.jpg").unlink()
    with pytest.raises(MissingDataError, match="none of its 4 rows has both images"):
        svo_probes(tmp_path / "svo_probes")
    path = tmp_path / "svo_probes" / "svo_probes.csv"
    path.write_text(path.read_text().replace("True,False,False", "True,True,False"))
    with pytest.raises(DataError, match="line 2: 2 of subj_neg, verb_neg, obj_neg are true; expected one"):
        svo_probes(tmp_path / "svo_probes")


def test_mmvp_vlm_pairs_two_rows(tmp_path: Path) -> None:
    compositionality.mmvp_vlm(tmp_path)
    data = mmvp_vlm(tmp_path / "mmvp_vlm")
    captions = "a photo of a red dog", "a photo of a green dog"
    assert data.groups[0] == Group((0, 1), captions, ("Color and Appearance",), "1")
    assert mmvp_vlm(tmp_path / "mmvp_vlm", prompt="{}").groups[1].captions == ("a red sign", "a green sign")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,Text,a", "line 2: has no partner"),
        ("1,Text,a\n2,Color,b", "line 2: has no partner"),
        ("2,Text,a\n3,Text,b", "line 2: has no partner"),
        ("one,Text,a\n2,Text,b", "line 2: has Question ID 'one'; expected a number"),
    ],
)
def test_mmvp_vlm_names_a_row_without_a_partner(rows: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "Questions.csv").write_text(f"Question ID,Type,Statement\n{rows}\n")
    with pytest.raises(DataError, match=message):
        mmvp_vlm(tmp_path)
