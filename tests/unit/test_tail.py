"""`tradeback tail`, run as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from tests.conftest import CHECKOUT
from tests.unit.test_journal import append, opened
from tradeback.cli import main
from tradeback.commands.tail import as_json, tail


def printed(folder: Path, *arguments: str) -> list[dict[str, object]]:
    done = CliRunner().invoke(main, ["tail", "--data-dir", str(folder), "--exchange", "sim", *arguments])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.output.splitlines()]


def test_each_record_is_one_line(tmp_path: Path) -> None:
    with opened(tmp_path / "sim" / "journal") as writer:
        writer.append_start(5)
        append(writer, 1)
        writer.append_gap(stream_id=7, first_id=30, last_id=34, ts_event=6, reason=1)
        writer.append_bytes(bytes(58) + b"\x63" + bytes(5))
    start, trade, gap, other = printed(tmp_path, "--from", "oldest", "--no-follow")
    assert start == {"seq": 1, "kind": "start", "ts_event": 5}
    assert trade["kind"] == "trade"
    assert (trade["price"], trade["trade_id"], trade["ts_event"]) == (1.5, 2, 2000)
    assert (gap["kind"], gap["first_id"], gap["last_id"]) == ("gap", 30, 34)
    assert (other["kind"], other["code"]) == ("other", 99)
    assert [line["seq"] for line in printed(tmp_path, "--from", "2", "--limit", "2")] == [2, 3]
    assert printed(tmp_path, "--no-follow") == []


def test_it_follows_the_journal_as_it_grows_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    script = "from tradeback.cli import main; main()"
    arguments = ["tail", "--from", "oldest", "--data-dir", str(tmp_path), "--exchange", "sim"]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process, opened(tmp_path / "sim" / "journal") as writer:
        assert process.stdout is not None
        for seq in range(1, 25):
            append(writer, 1)
            assert json.loads(process.stdout.readline())["seq"] == seq
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b""
        assert process.wait() == 0


def test_the_end_of_a_pipe_is_no_error(tmp_path: Path) -> None:
    with opened(tmp_path / "sim" / "journal") as writer:
        append(writer, 5000)
    script = "from tradeback.cli import main; main()"
    arguments = f"tail --from oldest --no-follow --data-dir {tmp_path} --exchange sim"
    done = subprocess.run(
        f"{sys.executable} -c '{script}' {arguments} | head -n 2",
        shell=True,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""


def test_wrong_starts_and_a_missing_journal_are_told(tmp_path: Path) -> None:
    for start in ("now", "0", "-1", str(2**64)):
        done = CliRunner().invoke(main, ["tail", "--from", start])
        assert done.exit_code == 2
        assert "give oldest, newest, or a record's number" in done.output
    done = CliRunner().invoke(main, ["tail", "--data-dir", str(tmp_path), "--exchange", "auto"])
    assert done.exit_code == 1
    assert "there is no journal yet" in done.output
    opened(tmp_path / "sim" / "journal").close()
    done = CliRunner().invoke(
        main, ["tail", "--data-dir", str(tmp_path), "--exchange", "auto", "--no-follow"]
    )
    assert (done.exit_code, done.output) == (0, "")


def test_a_price_that_json_cannot_hold_is_null(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        writer.append_trade(stream_id=1, price=float("nan"), qty=1, trade_id=1, ts_event=1)
        (record,) = tail(tmp_path, start="oldest", follow=False)
    assert json.loads(as_json(record))["price"] is None
