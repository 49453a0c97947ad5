"""The page from the files of a run: its data, what is escaped and hidden, its answers, its size."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hypvl.errors import DataError
from hypvl.report.html import page
from hypvl.report.html.answers import answers
from hypvl.report.html.run_files import curves, read_run
from tests.report.pages import HOSTILE, run_folder

DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.S)


def data_of(text: str) -> Any:
    (found,) = DATA.findall(text)
    return json.loads(found)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "run")


def test_a_page_from_files_alone(run: Path, tmp_path: Path) -> None:
    other = run_folder(tmp_path / "other", recall=50.0)
    written = page.write_page(read_run(run), [read_run(other)], tmp_path / "out" / "report.html")
    text = written.path.read_text()
    assert data_of(text)["answers"] == [[], []]
    assert (written.answers, written.bytes) == ([], len(text.encode()))
    data = data_of(text)
    assert (data["run"]["name"], [one["name"] for one in data["others"]]) == ("run", ["other"])
    curve = next(curve for curve in data["run"]["curves"] if curve["name"] == "loss")
    assert (curve["steps"], curve["values"][:2]) == ([10, 20, 30, 40, 50], [5.0, 2.5])
    row = data["run"]["results"][0]
    assert (row["metric"], row["interval"], row["chance"], row["main"]) == (
        "recall@1",
        [37.0, 43.0],
        0.2,
        True,
    )
    assert data["run"]["failed"] == [{"evaluation": "broken", "status": "failed", "reason": "no <data>"}]
    assert data["run"]["about"]["seed"] == 3


def test_nothing_secret_is_on_the_page(run: Path, tmp_path: Path) -> None:
    text = page.write_page(read_run(run), [], tmp_path / "report.html").path.read_text()
    assert not [secret for secret in ("abcdef123456", "me:pw", "token=abc") if secret in text]
    assert "tokenizer: clip" in data_of(text)["run"]["config"]


def test_texts_cannot_leave_their_element() -> None:
    text = page.render({"caption": HOSTILE, "other": "\ud800"}, title="</title><script>x</script>")
    assert data_of(text)["caption"] == HOSTILE
    assert text.count("<script") == 2 and "window.broken" not in text.replace(DATA.findall(text)[0], "")
    assert "</title><script>" not in text
    (element,) = DATA.findall(text)
    assert not set(element) & set("<>&\u2028")


def test_the_policy_names_the_scripts_and_styles_of_the_page() -> None:
    text = page.render({}, title="x")
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', text)
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    for part, name in ((script, "script-src"), (style, "style-src")):
        assert f"{name} '{page._digest(part)}'" in policy
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|https?://(?!www\.w3\.org)", script
    )


def test_a_page_that_is_too_large_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MOST_BYTES", 50_000)
    with pytest.raises(DataError, match=r"more than 50000; draw fewer images \(--points\)"):
        page.write_page(read_run(run), [], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_numbers_are_rounded_and_finite() -> None:
    assert page.json_element([1 / 3, float("nan"), 7, True, None]) == "[0.333333,null,7,true,null]"


def test_long_curves_are_averaged_and_resumed_ones_read_last() -> None:
    rows = [{"iteration": i, "loss": float(i), "epoch": 1} for i in range(1, 901)]
    (curve,) = curves([*rows, {"iteration": 1, "loss": 7.0}, {"loss": 3.0}])
    assert len(curve["steps"]) == 300 and curve["steps"][:2] == [3, 6]
    assert curve["values"][:2] == pytest.approx([(7 + 2 + 3) / 3, 5.0])
    assert curves([{"iteration": 1, "loss": float("inf")}])[0]["values"] == [None]


def test_a_cut_last_line_is_left_out_and_a_broken_one_named(run: Path) -> None:
    file = run / "metrics.jsonl"
    file.write_text(file.read_text() + '\n{"iteration": 60, "lo')
    assert read_run(run).curves[0]["steps"][-1] == 50
    file.write_text('{"iter\n{"iteration": 1, "loss": 1.0}')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 1: is not JSON"):
        read_run(run)


def test_files_that_are_not_there_or_of_another_version(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the folder of a training run"):
        read_run(tmp_path)
    (run / "report_data.json").write_text('{"format_version": 0}')
    with pytest.raises(DataError, match="has format_version 0; expected 1"):
        read_run(run)
    (run / "report_data.json").write_text('{"format_version": 1}')
    with pytest.raises(DataError, match=r"report_data\.json: lacks 'audit'"):
        page.write_page(read_run(run), [], tmp_path / "report.html")


def test_traversals_of_the_folder_are_shown_over_white(run: Path) -> None:
    Image.new("RGBA", (300, 300), (0, 0, 0, 0)).save(run / "clear.png")
    step = {"text": "a dog", "radius": 1.0, "score": 0.5, "weight": 1.0}
    walk = {
        "image": str(run / "clear.png"),
        "root": "geometry",
        "texts": ["a dog", "[ROOT]"],
        "steps": [step],
    }
    (run / "traversals").mkdir()
    (run / "traversals" / "clear.json").write_text(json.dumps(walk))
    (run / "traversals" / "gone.json").write_text(json.dumps(walk | {"image": str(run / "gone.png")}))
    (shown,) = read_run(run).traversals
    assert (shown["key"], shown["steps"][0]["text"]) == ("clear.png", "a dog")
    import base64
    import io

    pixels = Image.open(io.BytesIO(base64.b64decode(shown["thumbnail"].partition(",")[2])))
    assert pixels.size == (128, 128) and min(pixels.convert("RGB").getpixel((64, 64))) > 250


NUMBERS = {
    "curv": 1.0, "text_radius_q50": 0.8, "image_radius_q50": 1.2, "flat_distortion": 6.0, "radial_order_auc": 90.0,
    "radial_order_auc_null": 60.0, "radial_order_auc_null_quantile": 100.0, "curv_at_floor": 0.0,
}  # fmt: skip


def model(*, words: list[dict[str, Any]] | None = None, right: int = 60, **numbers: float) -> dict[str, Any]:
    return {
        "audit": {"metrics": NUMBERS | numbers},
        "geometry": {"factors": 1, "root": True},
        "retrieval": {
            "text_to_image": {"queries": 100, "right": right, "within_5": 80},
            "words": [] if words is None else words,
        },
    }


def test_answers_that_are_good() -> None:
    curved, above, failing = answers(model(right=90))
    assert (curved.level, above.level, failing.level) == ("good", "good", "good")
    assert curved.text == (
        "Yes: the median embedding lies at u = 0.80 (texts) and 1.20 (images) at c = 1, and distances differ from flat "
        "ones by 6.0% on average."
    )
    assert "90.0% of pairs, more than the 60.0% of shuffled pairs" in above.text
    assert failing.text.startswith("10 of 100 texts (10.0%) do not find their image first; ")


def test_answers_that_are_bad() -> None:
    flat = answers(model(text_radius_q50=0.1, image_radius_q50=0.2))[0]
    assert (flat.level, flat.short) == ("bad", "Almost flat")
    assert answers(model(curv_at_floor=100.0))[0].short == "At the floor"
    assert answers(model(radial_order_auc_null_quantile=50.0))[1].short == "Yes, as a group"
    assert answers(model(radial_order_auc_null_quantile=50.0, radial_order_auc=40.0))[1].level == "bad"
    words = [
        {"word": "left", "queries": 20, "failed": 18, "low": 0.7, "high": 0.97},
        {"word": "dog", "queries": 10, "failed": 5, "low": 0.2, "high": 0.8},
    ]
    failing = answers(model(words=words, right=20))[2]
    assert failing.text.endswith("; no word of the captions fails more often than the rest.")
    failing = answers(model(words=words, right=60))[2]
    assert failing.text.endswith("; those with “left” (90% of 20) fail more often than the rest.")


def test_answers_without_curvature_or_root() -> None:
    content = model()
    content["geometry"] = {"factors": 0, "root": False}
    curved, above, _ = answers(content)
    assert (curved.short, above.short) == ("No curvature", "No root")
    assert "on a sphere" in curved.text and "the mean embedding" in above.text
