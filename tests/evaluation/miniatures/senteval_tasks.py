"""SentEval's transfer tasks in small; `root` stands for ./datasets. Fills roots.senteval of eval_senteval.py."""

from pathlib import Path

#: Sentences of class 1 and of class 0, which colours tell apart.
SENTENCES = {
    1: [f"the red  thing {i}" for i in range(4)] + ["red and yellow caf\xe9", "red \x85 again"],
    0: [f"a green thing {i}" for i in range(4)] + ["green and blue", "so blue"],
}
FILES = ("MR/rt-polarity.{}", "CR/custrev.{}", "MPQA/mpqa.{}")
TREC = {
    "ABBR": "red",
    "DESC": "green",
    "ENTY": "blue",
    "HUM": "yellow",
    "LOC": "red blue",
    "NUM": "green blue",
}


def write(path: Path, content: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(encoding))


def make(root: Path) -> None:
    """MR, CR, SUBJ, MPQA, SST, TREC and MRPC below senteval/."""
    folder = root / "senteval"
    texts = {label: "\n".join(sentences) + "\n" for label, sentences in SENTENCES.items()}
    for file in FILES:
        write(folder / file.format("pos"), texts[1], "latin-1")
        write(folder / file.format("neg"), texts[0], "latin-1")
    write(folder / "SUBJ" / "subj.objective", texts[1], "latin-1")
    write(folder / "SUBJ" / "subj.subjective", texts[0], "latin-1")
    for split in ("train", "dev", "test"):
        lines = [f"{text}\t{label}" for label, own in SENTENCES.items() for text in own]
        write(folder / "SST" / "binary" / f"sentiment-{split}", "\n".join(lines) + "\n")
    for name, count in (("train_5500", 3), ("TREC_10", 1)):
        lines = [
            f"{label}:sub What {word} caf\xe9 is {i} ?" for label, word in TREC.items() for i in range(count)
        ]
        write(folder / "TREC" / f"{name}.label", "\n".join(lines) + "\n", "latin-1")
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    pairs = [
        f'{int(one == other)}\t1\t2\tA "{one} car {i}.\tThe {other} car.'
        for one in ("red", "green")
        for other in ("red", "green")
        for i in range(2)
    ]
    for split in ("train", "test"):
        write(folder / "MRPC" / f"msr_paraphrase_{split}.txt", header + "\r\n".join(pairs) + "\r\n")
