"""Claims: one process at a time, taken over when its owner is gone."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from hypvl.units.claims import Claims, Owner


def of_another(folder: Path, owner: Owner, *, age: float = 0.0, number: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"a.{number}"
    path.write_text(json.dumps(asdict(owner)))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_one_holds_a_unit_and_the_others_do_not(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    with claims.hold("a") as held, claims.hold("a") as second, claims.hold("a.0") as other:
        assert held is not None and second is None and other is not None
        current = claims.current("a")
        assert current is not None and current.owner == held.owner and not current.is_stale(1)
        assert str(held.owner) == f"process {os.getpid()} of {held.owner.host}"
    assert not list(tmp_path.iterdir())


def test_the_claim_of_an_ended_process_here_is_taken_over_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from hypvl.units.claims import Claims\n"
        "with Claims(Path(sys.argv[1])).hold('a'): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.0"]
    with Claims(tmp_path).hold("a") as held:
        assert held is not None and held.path.name == "a.1" and [c.number for c in held.before] == [0]
    assert not list(tmp_path.iterdir())


def test_a_process_with_the_number_of_an_ended_one_is_another(tmp_path: Path) -> None:
    of_another(tmp_path, replace(Owner.new(), started="1"))
    with Claims(tmp_path).hold("a") as held:
        assert held is not None


def test_a_claim_of_another_machine_holds_until_it_gives_no_sign_of_life(tmp_path: Path) -> None:
    elsewhere = replace(Owner.new(), host="node7", machine="other", pid=1)
    of_another(tmp_path, elsewhere, age=590)
    with Claims(tmp_path).hold("a") as held:
        assert held is None
    of_another(tmp_path, elsewhere, age=610)
    with Claims(tmp_path).hold("a") as held:
        assert held is not None and not held.is_lost()
        # The other one was only slow: it touches its claim again, which is no longer the last.
        os.utime(tmp_path / "a.0")
        with Claims(tmp_path).hold("a") as third:
            assert third is None


def test_an_owner_that_was_taken_for_dead_notices(tmp_path: Path) -> None:
    with Claims(tmp_path).hold("a") as held:
        assert held is not None
        of_another(tmp_path, replace(Owner.new(), host="node7", machine="other"), number=1)
        assert held.is_lost()


def test_a_claim_that_says_nothing_is_judged_by_its_age(tmp_path: Path) -> None:
    path = of_another(tmp_path, Owner.new())
    path.write_text("")
    with Claims(tmp_path).hold("a") as held:
        assert held is None
    os.utime(path, (1, 1))
    with Claims(tmp_path).hold("a") as held:
        assert held is not None


def test_the_owner_gives_signs_of_life(tmp_path: Path) -> None:
    with Claims(tmp_path, minutes=0.05 / 60).hold("a") as held:
        assert held is not None
        os.utime(held.path, (1, 1))
        deadline = time.monotonic() + 10
        while held.path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert held.path.stat().st_mtime > 2
