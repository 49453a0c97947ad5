"""The tokenizer against open_clip's, hand-computed ids, bounds of its caches, pickling, threads."""

import importlib.util
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from hypvl.data import tokenizer as tokenizer_module
from hypvl.data.tokenizer import EOT_TOKEN, SOT_TOKEN, Tokenizer, get_tokenizer, is_blank, merge_pairs, repair

Encode = Callable[[str], list[int]]
UNBOUNDED = Tokenizer(10_000_000)


@pytest.fixture(scope="module")
def open_clip_encode() -> Encode:
    # Its tokenizer file alone: the whole package takes ten seconds to import.
    package = importlib.util.find_spec("open_clip")
    assert package is not None
    assert package.origin is not None
    spec = importlib.util.spec_from_file_location(
        "open_clip_tokenizer", Path(package.origin).with_name("tokenizer.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokenizer = module.SimpleTokenizer()
    return lambda text: [49406, *tokenizer.encode(text), 49407]


def test_ids_computed_by_hand() -> None:
    # "!" is the first printable byte: id 0, and 256 where it ends a word. "a" is byte 97: the 65th, 64 + 256.
    assert UNBOUNDED.encode("! a") == [49406, 256, 320, 49407]
    # "i" + "n</w>" is the first merge of the file: the first id after 2 * 256 bytes is 512.
    assert UNBOUNDED.decode([512]) == "in"
    assert UNBOUNDED.encode("in") == [49406, *merge_pairs([72, 77 + 256], {(72, 333): 530}), 49407]


def test_merges_lowest_pair_first_then_leftmost() -> None:
    merges = {(1, 2): 10, (2, 3): 11, (10, 3): 12, (4, 4): 13, (13, 4): 14}
    assert merge_pairs([1, 2, 3], merges) == [12]  # (1,2) before (2,3), and then (10,3)
    assert merge_pairs([2, 3, 1], merges) == [11, 1]
    assert merge_pairs([4, 4, 4], merges) == [14]  # leftmost: (4 4) 4, never 4 (4 4)
    assert merge_pairs([4, 4, 4, 4], merges) == [13, 13]
    assert merge_pairs([5], merges) == [5]
    assert merge_pairs([], merges) == []


def slow_merges(symbols: list[int], merges: dict[tuple[int, int], int]) -> list[int]:
    """The textbook rule: find the lowest pair, merge all its occurrences from the left, start again."""
    while True:
        known = [merges[p] for p in pairwise(symbols) if p in merges]
        if not known:
            return symbols
        out: list[int] = []
        for s in symbols:
            if out and merges.get((out[-1], s)) == min(known):
                out[-1] = min(known)
            else:
                out.append(s)
        symbols = out


def test_merges_follow_the_textbook_rule_on_random_tables() -> None:
    rng = random.Random(0)
    for _ in range(300):
        merges: dict[tuple[int, int], int] = {}
        for new in range(4, 14):
            merges.setdefault((rng.randrange(new), rng.randrange(new)), new)
        symbols = [rng.randrange(4) for _ in range(rng.randrange(30))]
        assert merge_pairs(symbols, merges) == slow_merges(symbols, merges)


HARD = [
    "", " ", "\n\t\r\n", "!", "a", "'s", "'S 'LL", "don't DON'T doN't we'd", "''s's", "\u2019s isn\u2019t",
    "rock & roll", "R&B", "R&B & soul &", "&", "&&", "& amp;", "&amp;", "&AMP;", "&amp", "&ampfoo", "&lt;3",
    "&#39;", "&#x27;s", "&amp;#39;", "&amp;amp;lt;", "&nbsp;x", "&notit;", "&EACUTE;t&eacute;", "<&amp;lt;",
    "&\tamp;", "&\namp;", "&\r", "a\x0bb", "a\x0cb", "a\x1cb", "a\x1fb", "\x1b[31mred\x1b[0m", "\x00", "a\x7fb",
    "a\x85b", "a\xa0b", "a\u2003b", "a\u2028b", "a\u200bb", "a\u3000b", "\ufeffbom", "a\u180eb", "\u202ertl",
    "\ud800", "x\udfffy", "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f", "1\ufe0f\u20e3",
    "caf\u00e9 cafe\u0301 CAFE\u0301", "\u0130stanbul \u0131", "\u017fun '\u017f", "\u212a \u00df \u1e9e \ufb01",
    "\u4e00\u53ea\u732b", "\u30bf\u30ef\u30fc", "\ud55c\uad6d\uc5b4", "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\u0645\u0631\u062d\u0628\u0627", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u0663\u0664 \u00bd \u2167 x\u00b2",
    "schÃ¶n â€œquotedâ€\x9d doesnâ€™t", "Ã©", "\uff21\uff22\uff11", "\u2026\u2014\u00ab\u00bb\u20ac\u00a3",
    "snake_case-kebab", "3.14 1,000", "x" * 700, "ab" * 300, "!?" * 200, "a1b2c3", "#tag @user http://a.b/c?d=e&f=g",
    "{}: %s \\n $1", "</w>", "a</w>b",
]  # fmt: skip


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_same_ids_as_open_clip(text: str, open_clip_encode: Encode) -> None:
    ids = open_clip_encode(text)
    assert UNBOUNDED.encode(text) == ids
    assert get_tokenizer().encode(text) == (ids if len(ids) <= 77 else [*ids[:76], 49407])


def random_text(rng: random.Random) -> str:
    """Strings that mix plain words with everything that the short cut has to notice."""
    alphabets = [
        "abcdefgh",
        "etaoin  ",
        "'sStTdm ",
        "&;#xamplt39 ",
        "\x00\x0b\x0c\x1b\x1c\x7f[m\t\r\n a",
        "0189.,-!",
    ]
    alphabets += [
        "éÉßøñüİıſ ",
        "一只猫日本語한국 ",
        "😀🐱\u200d\ufe0f ",
        "\xa0\x85\u2003\u200b a",
        "Ã©â€œ™ a",
    ]
    parts = [
        "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 9)))
        for alphabet in rng.choices(alphabets, k=rng.randrange(1, 7))
    ]
    if rng.random() < 0.2:
        parts.append("".join(chr(rng.randrange(0x20, 0x2FFF)) for _ in range(5)))
    return "".join(parts)


def test_same_ids_as_open_clip_on_random_strings(open_clip_encode: Encode) -> None:
    rng = random.Random(1)
    for _ in range(1500):
        text = random_text(rng)
        assert UNBOUNDED.encode(text) == open_clip_encode(text), repr(text)


@pytest.mark.slow
def test_same_ids_as_open_clip_on_many_random_strings(open_clip_encode: Encode) -> None:
    rng = random.Random(2)
    for _ in range(60_000):
        text = random_text(rng)
        assert UNBOUNDED.encode(text) == open_clip_encode(text), repr(text)


def test_short_cut_changes_nothing() -> None:
    import html

    import ftfy

    rng = random.Random(3)
    for _ in range(3000):
        text = "".join(
            chr(rng.randrange(128)) if rng.random() < 0.3 else rng.choice("a &;\n") for _ in range(9)
        )
        slow = html.unescape(html.unescape(ftfy.fix_text(text)))
        assert repair(text).split() == slow.split(), repr(text)


def test_words_without_ids_do_not_shorten_a_truncated_text(open_clip_encode: Encode) -> None:
    text = "\u0345 " * 100 + "a cat " * 60  # the pattern of CLIP drops this mark
    ids = open_clip_encode(text)
    assert len(ids) == 122
    assert UNBOUNDED.encode(text) == ids
    assert get_tokenizer().encode(text) == [*ids[:76], 49407]
    assert get_tokenizer().encode("\u0345 " * 100 + "a cat") == [49406, 320, 2368, 49407]


@pytest.mark.slow
def test_same_ids_as_open_clip_on_every_character(open_clip_encode: Encode) -> None:
    for start in [*range(0, 0x32000, 64), 0xE0000, 0xE0100, 0xF0000, 0x10FFC0]:  # the planes in use
        text = " ".join(f"{chr(c)} a{chr(c)}b" for c in range(start, start + 64) if not 0xD800 <= c < 0xE000)
        assert UNBOUNDED.encode(text) == open_clip_encode(text), hex(start)


def test_truncates_and_pads() -> None:
    tok = Tokenizer(4)
    assert tok(["a", "a a", "a a a", "a " * 9]).tolist() == [
        [49406, 320, 49407, 0],
        [49406, 320, 320, 49407],
        [49406, 320, 320, 49407],
        [49406, 320, 320, 49407],
    ]
    assert tok("a").tolist() == [[49406, 320, 49407]]
    assert tok(["", " "]).tolist() == [[49406, 49407]] * 2
    assert Tokenizer(2)("a b").tolist() == [[49406, 49407]]
    assert tok([]).shape == (0, 0)
    assert tok(("a",)).dtype == torch.int64


def test_one_word_may_be_cut_inside() -> None:
    whole = UNBOUNDED.encode("antidisestablishmentarianism")
    assert len(whole) > 5
    assert Tokenizer(5).encode("antidisestablishmentarianism") == [*whole[:4], 49407]


def test_rows_of_a_fixed_length_stack_in_a_default_collate_function() -> None:
    tok = get_tokenizer(5, padding="max_length")
    rows = [tok(text)[0] for text in ("a", "a a", "a " * 9)]  # what a Dataset gives, one text at a time
    batch = torch.utils.data.default_collate(rows)
    assert batch.tolist() == [
        [49406, 320, 49407, 0, 0],
        [49406, 320, 320, 49407, 0],
        [49406, 320, 320, 320, 49407],
    ]
    assert tok([]).shape == (0, 5)
    assert pickle.loads(pickle.dumps(tok))("a").shape == (1, 5)
    with pytest.raises(ValueError, match="padding: got 'max'; expected 'longest' or 'max_length'"):
        get_tokenizer(padding="max")  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", ["amp;", "#38;", "a&#109;p;", "amp;#38;"])
def test_nested_entities_take_no_time(unit: str) -> None:
    """ftfy resolves a level at a time: with 16,000 of them a data worker would stand still for minutes."""
    start = time.perf_counter()
    assert len(get_tokenizer()("&" + unit * 50_000)[0]) <= 77
    assert not is_blank("a cat &" + unit * 50_000)
    assert time.perf_counter() - start < 2.0
    assert repair("&" + unit * 3 + "lt; a cat") == "< a cat" or unit == "a&#109;p;"


@pytest.mark.parametrize("word", ["a", "ab", "é", "!", "&amp;", "中", "antidisestablishmentarianism"])
def test_a_word_of_a_million_letters_keeps_its_ids_and_takes_no_time(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    merge = tokenizer_module.merge_pairs
    monkeypatch.setattr(
        tokenizer_module,
        "merge_pairs",
        lambda symbols, merges: seen.append(len(symbols)) or merge(symbols, merges),
    )
    million = word * (1_000_000 // len(word))
    assert get_tokenizer().encode(million) == [*UNBOUNDED.encode(word * 2_000)[:76], 49407]
    assert seen[0] <= 77 * 32 + 4096  # bytes whose pairs are merged, of a million


def test_no_token_is_longer_than_the_bound_of_words() -> None:
    assert max(map(len, tokenizer_module._vocabulary().token_bytes)) == tokenizer_module._LONGEST_TOKEN


def test_decodes_what_it_encoded() -> None:
    tok = get_tokenizer()
    text = "a large red circle , left of a 2 d café \U0001f600"
    assert tok.decode(tok.encode(text)) == text
    assert tok.decode(tok(["a", "two words"])[0]) == "a"  # a tensor, padded
    assert tok.decode([49406, 320, 49407, 518, 0, 0]) == "a"
    assert tok.decode([]) == ""
    with pytest.raises(ValueError, match=r"id 49408 is outside the vocabulary of 49408"):
        tok.decode([49408])


def test_wrong_input_is_named() -> None:
    with pytest.raises(TypeError, match=r"a text is NoneType \(None\), but a string is expected"):
        get_tokenizer()(["a", None])  # type: ignore[list-item]  # what a missing caption looks like
    with pytest.raises(TypeError, match="bytes"):
        get_tokenizer().encode(b"a")  # type: ignore[arg-type]  # undecoded
    with pytest.raises(ValueError, match="context_length: got 1; expected a whole number of at least 2"):
        get_tokenizer(1)


def test_caches_are_bounded_and_change_nothing() -> None:
    tok = Tokenizer(cache_size=8)
    bare = Tokenizer(cache_size=0)
    texts = [f"word{i} thing{i % 3} {'y' * (60 + i)}" for i in range(50)]
    for text in [*texts, *texts]:
        assert tok.encode(text) == bare.encode(text)
    for memo in (tok._words, tok._pieces):
        assert len(memo) <= 8
        assert len(memo.old) <= 8
        assert max(map(len, memo)) <= 64
    assert not bare._words
    assert not bare._pieces


def test_recent_words_survive_a_full_cache() -> None:
    tok = Tokenizer(cache_size=4)
    computed: list[str] = []
    compute = tok._words.compute
    tok._words.compute = lambda word: computed.append(word) or compute(word)  # type: ignore[func-returns-value]
    for i in range(20):
        tok.encode(f"often rare{i}")
    assert computed.count("often") == 1
    assert len(computed) == 21


def test_pickles_without_its_caches() -> None:
    tok = Tokenizer(12, cache_size=100)
    tok([f"some words {i}" for i in range(200)])
    data = pickle.dumps(tok)
    assert len(data) < 200
    copy = pickle.loads(data)
    assert (copy.context_length, copy.cache_size) == (12, 100)
    assert copy("some words 7").tolist() == tok("some words 7").tolist()


def test_threads_share_one_tokenizer() -> None:
    tok = Tokenizer(cache_size=16)
    texts = [f"cat{i % 37} dog{i % 11} {i}" for i in range(400)]
    expected = [Tokenizer().encode(t) for t in texts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(tok.encode, texts)) == expected


def test_imports_and_encodes_without_torch_and_open_clip() -> None:
    code = (
        "import sys, hypvl\n"
        "assert hypvl.get_tokenizer().encode('a cat')[1:-1] == [320, 2368]\n"
        "print(sorted({'torch', 'open_clip', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_absent_vocabulary_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from hypvl.data import tokenizer
    from hypvl.errors import DataError

    monkeypatch.setattr(tokenizer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="open_clip_torch"):
        tokenizer._vocabulary.__wrapped__()


@pytest.mark.slow
def test_is_fast() -> None:
    # About 200,000 captions a second were measured; a busy machine gets a wide margin.
    rng = random.Random(4)
    words = [f"word{i}" for i in range(3000)]
    captions = [" ".join(rng.choices(words, k=10)) for _ in range(20_000)]
    tok = get_tokenizer()
    tok(captions)
    start = time.perf_counter()
    for i in range(0, len(captions), 500):
        tok(captions[i : i + 500])
    assert len(captions) / (time.perf_counter() - start) > 30_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "&nbsp;",
        "&amp;nbsp; ",
        "\x00\x1b[36m",
        "\ufeff",
        "&#32;&#x20;",
        "\u3000",
    ],
)
def test_texts_of_which_nothing_is_left(text: str) -> None:
    assert is_blank(text) and get_tokenizer().encode(text) == [SOT_TOKEN, EOT_TOKEN]


@pytest.mark.parametrize(
    "text", ["a", "7", "山", "!", "_", "😀", "& ", "&nbsp;x", "\x00a", "\u200b", "é&", "..."]
)
def test_texts_of_which_something_is_left(text: str) -> None:
    assert not is_blank(text) and len(get_tokenizer().encode(text)) > 2
