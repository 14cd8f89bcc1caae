"""The files of the configuration: what is refused, in one sentence that gives nothing away."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import settings as settings_of_run
from hypothesis import strategies as st

from tradeback.cli import main
from tradeback.config import Config, load_config, notices, settings
from tradeback.config.files import MAX_VALUE_BYTES, MAX_YAML_BYTES
from tradeback.config.values import without_passwords
from tradeback.errors import ConfigError

# What people really have in passwords, and what each of URL, YAML, shell and compose file takes for its own.
HARD = "p@ss/w:o%r d$HOME${X}#?&*!'\"`\\,;=é"


def refused(path: Path | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ=environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


def file(folder: Path, content: str | bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


class TestValuesFromFiles:
    @pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
    def test_the_line_break_at_the_end_does_not_count(self, tmp_path: Path, end: str) -> None:
        config = load_config(environ={"MYSQL_PASSWORD_FILE": str(file(tmp_path, f" {HARD} {end}"))})
        assert config.database.mysql.password.get_secret_value() == f" {HARD} "

    def test_any_setting_may_stand_in_one(self, tmp_path: Path) -> None:
        for one in settings():
            message = refused(**{f"{one.env}_FILE": "/nowhere"})
            assert message.startswith(
                f"The file /nowhere that {one.env}_FILE names cannot be read (No such file"
            )
        config = load_config(environ={"NATS_URL_FILE": str(file(tmp_path, "nats://u:hush@bus:4222\n"))})
        assert config.messaging.nats.url == "nats://u:hush@bus:4222"

    def test_no_variable_of_a_setting_is_the_file_of_another(self) -> None:
        names = {one.env for one in settings()}
        assert not {f"{name}_FILE" for name in names} & names

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty: write the value into it, or unset MYSQL_PASSWORD_FILE"),
            (b"\r\n", "is empty"),
            (b"hush" * MAX_VALUE_BYTES, "has more than 65536 bytes, which is too much"),
            (b"hush\xff", "is no UTF-8 text from byte 4 on"),
            (b"hush\nhush", "MYSQL_PASSWORD_FILE is a value not shown here: it must be text of one line"),
            (b"hush\x00", "a value not shown here"),
        ],
    )
    def test_what_cannot_be_a_secret(self, tmp_path: Path, content: bytes, words: str) -> None:
        message = refused(MYSQL_PASSWORD_FILE=str(file(tmp_path, content)))
        assert words in message
        assert "hush" not in message

    def test_a_folder_or_an_endless_file_is_none(self, tmp_path: Path) -> None:
        assert "(Is a directory)" in refused(INFLUX_TOKEN_FILE=str(tmp_path))
        assert "more than 65536 bytes" in refused(INFLUX_TOKEN_FILE="/dev/zero")

    def test_a_wrong_value_from_a_file_is_not_shown(self, tmp_path: Path) -> None:
        message = refused(NATS_URL_FILE=str(file(tmp_path, "nats:/u:hush@bus")))
        assert message.startswith("NATS_URL_FILE is a value not shown here: it must be a URL that begins")
        assert "hush" not in message

    def test_one_that_was_given_in_place_of_its_file_is_not_shown(self) -> None:
        assert refused(MYSQL_PASSWORD_FILE="hush").startswith(
            "The file (not shown here) that MYSQL_PASSWORD_FILE names cannot be read (No such file or directory)"
        )

    def test_no_command_prints_one(self, tmp_path: Path) -> None:
        path = file(tmp_path, "hush" * 10)
        path.chmod(stat.S_IRUSR)
        secrets = {f"{one.env}_FILE": str(path) for one in settings() if one.is_secret}
        assert len(secrets) >= 4
        for command in (["config", "print"], ["config", "check"]):
            done = CliRunner().invoke(main, command, env=secrets)
            assert done.exit_code == 0
            assert "hush" not in done.output
        assert CliRunner().invoke(main, ["config", "print"], env=secrets).output.count("'***'") == len(
            secrets
        )


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("server: {port: 1}\nserver: {port: 2}", " in line 2, column 1: server stands in line 1 already"),
            ("server: {port: 1, port: 2}", "line 1, column 19: port stands in line 1 already"),
            ("a: &a [x]\nb: [*a, *a]", "line 1, column 4: put text that begins with &, * or ! into quotes"),
            ("server: &a {cors: *a}", "into quotes"),
            ("database: {mysql: {password: *hush}}", "into quotes"),
            ("database: {mysql: {password: !hush x}}", "into quotes"),
            ("database: {mysql: {password: !hush!y x}}", "found undefined tag handle"),
            ('database: {mysql: {password: "hush\n  x: [', "found unexpected end of stream"),
            ("database: {mysql: {password: @hush}}", "cannot start any token"),
            ("server: {host: !!python/object/apply:os.system [id]}", "into quotes"),
            ("[" * 5_000, "line 1, column 21: more than 20 levels in each other"),
            ("server: {1: 2}", "a name must be text"),
            ("server: {<<: {port: 7}}", "a name must be text"),
            ("server: {port: 9}\x00", "it holds the character U+0000"),
            ("server: {}\n---\nserver: {}", "but found another document"),
            ("server: {host: 2020-13-01}", "holds a number or a date that cannot be"),
            ("x" * (MAX_YAML_BYTES + 1), "has more than 1048576 bytes"),
            ("server: {port: true}", "is True: it must be a whole number from 0 to 65535"),
            ("server: {read_timeout: yes}", "is True: it must be a duration"),
            (
                "database: {mysql: 'mysql://u:hush@db'}",
                "is 'mysql://u:***@db': it must be a section with host",
            ),
        ],
    )
    def test_what_would_be_taken_for_something_else_is_refused(
        self, tmp_path: Path, text: str, sentence: str
    ) -> None:
        path = file(tmp_path, text)
        message = refused(path)
        assert str(path) in message
        assert sentence in message
        assert "hush" not in message

    def test_windows_writes_lines_and_marks_its_own_way(self, tmp_path: Path) -> None:
        path = file(tmp_path, b"\xef\xbb\xbfserver:\r\n  port: 9\r\n  host: 1.2.3.4\r\n")
        server = load_config(path, environ={}).server
        assert (server.port, server.host) == (9, "1.2.3.4")

    @settings_of_run(deadline=None)
    @given(content=st.binary(max_size=300))
    @example(b"server: {port: 0b_}")
    @example(b"server: {port: ._}")
    @example(b"? [a]: b")
    def test_whatever_stands_in_it_is_a_configuration_or_a_sentence(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes
    ) -> None:
        path = file(tmp_path_factory.getbasetemp(), content)
        with contextlib.suppress(ConfigError):
            assert isinstance(load_config(path, environ={}), Config)


def test_what_surrounds_a_variable_does_not_count() -> None:
    config = load_config(environ={"MYSQL_HOST": " db\r", "SERVER_PORT": "9\r", "SERVER_HOST": " "})
    assert (config.database.mysql.host, config.server.port, config.server.host) == ("db", 9, "0.0.0.0")


def test_a_name_with_blanks_or_small_letters_is_noticed() -> None:
    for name, shown in (
        ("SERVER_PORT ", "'SERVER_PORT '"),
        (" SERVER_PORT", "' SERVER_PORT'"),
        ("server_port", "server_port"),
    ):
        assert notices(Config(), {name: "9"}) == [
            f"The variable {shown} is no setting and has no effect: did you mean SERVER_PORT?"
        ]


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "nats://u:hush@hush@h:4222",
            "nats://u:hu/sh@h:4222",
            "nats://u:hu#sh@h",
            "nats://u:hu?sh@h",
            "nats://u:hu sh@h",
            "nats://h:99999",
            "nats://h:0",
            "nats://",
            "nats://a:4222,b:4222",
            "nats://a,b",
            "nats://a,nats://b:0",
            "nats://a,nats://",
            "nats://a,tls://b",
            "nats://u:hush@a,nats://u:hu@sh@b",
        ],
    )
    def test_one_that_can_be_read_in_two_ways_is_refused(self, address: str) -> None:
        message = refused(NATS_URL=address)
        assert "signs such as @ / : % are written %40 %2F %3A %25" in message
        assert "sh@" not in message
        assert "hu" not in message

    @pytest.mark.parametrize("name", ["INFLUX_URL", "EXCHANGE_REST_ENDPOINT", "EXCHANGE_WS_ENDPOINT"])
    def test_others_hold_no_login(self, name: str) -> None:
        scheme = "ws" if "WS" in name else "http"
        assert f"{name} is '{scheme}://u:***@h'" in refused(**{name: f"{scheme}://u:hush@h"})

    def test_a_redis_is_named_by_host_and_port(self) -> None:
        message = refused(REDIS_ADDR="redis://:hush@h:6379")
        assert message.startswith("cache.redis.addr is 'redis://***@h:6379': give host:port")
        assert "hush" not in message

    @given(
        user=st.text(st.characters(codec="utf-8"), min_size=1), password=st.text(st.characters(codec="utf-8"))
    )
    @example("trader", HARD)
    def test_every_user_and_password_can_be_written(self, user: str, password: str) -> None:
        address = f"nats://{quote(user, safe='')}:{quote(password, safe='')}@bus:4222"
        nats = load_config(environ={"NATS_URL": address}).messaging.nats
        assert nats.credentials(nats.url) == (user, password, None)
        assert without_passwords(address).endswith(":***@bus:4222")

    def test_a_cluster_has_several(self) -> None:
        address = "tls://u:hu,sh@a, tls://v:hush@b:5/,tls://hush@[::1]:6,tls://d"
        nats = load_config(environ={"NATS_URL": address}).messaging.nats
        assert nats.servers() == ["tls://u:hu,sh@a", "tls://v:hush@b:5", "tls://hush@[::1]:6", "tls://d"]
        assert [nats.credentials(server) for server in nats.servers()] == [
            ("u", "hu,sh", None),
            ("v", "hush", None),
            (None, None, "hush"),
            (None, None, None),
        ]
        assert without_passwords(nats.url) == "tls://u:***@a,tls://v:***@b:5,tls://***@[::1]:6,tls://d"

    def test_a_name_alone_is_a_token(self) -> None:
        nats = load_config(environ={"NATS_URL": "nats://hu%40sh@bus"}).messaging.nats
        assert nats.credentials(nats.url) == (None, None, "hu@sh")
        assert without_passwords(nats.url) == "nats://***@bus"
        assert nats.credentials("nats://bus") == (None,) * 3


def test_what_goes_into_a_header_is_ascii() -> None:
    assert refused(INFLUX_TOKEN="h€sh") == (
        "INFLUX_TOKEN is a value not shown here: it must be text of one line in ASCII"
    )


@pytest.mark.parametrize("one", [one for one in settings() if one.is_secret], ids=lambda one: one.env)
def test_a_hard_password_is_the_same_from_each_source(tmp_path: Path, one: object) -> None:
    key, env = one.key, one.env
    password = HARD if "ASCII" not in one.allowed else HARD.replace("é", "e")
    section: dict[str, object] = {}
    place = section
    *sections, name = key.split(".")
    for part in sections:
        place = place.setdefault(part, {})
    place[name] = password
    path = file(tmp_path, yaml.safe_dump(section))
    for config in (load_config(path, environ={}), load_config(environ={env: password})):
        value = config
        for part in key.split("."):
            value = getattr(value, part)
        assert value.get_secret_value() == password
