"""Dockerfile, docker-compose.yml and deploy/: what can be told of them without a container engine.

`tests/image_walk.py` does what the Dockerfile says; `tests/e2e/test_nginx.py` runs nginx with its configuration.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft7Validator

from tests.conftest import CHECKOUT, private
from tests.dockerfile import context, stages
from tests.servers.redis import RedisServer
from tradeback.api.gunicorn_conf import KEEP_ALIVE_S
from tradeback.api.middleware import MAX_BODY_BYTES
from tradeback.cli import COMMANDS
from tradeback.config import ServerConfig, WebSocketConfig, settings

COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
OURS = ("migrate", "server", "recorder", "api")
STORES = ("mysql", "influxdb", "redis", "nats")
STAGES = stages(CHECKOUT / "Dockerfile")
VARIABLES = {name for one in settings() for name in (one.env, f"{one.env}_FILE")}


class TestCompose:
    def test_it_is_what_the_schema_of_compose_allows(self) -> None:
        errors = Draft7Validator(get_builtin_schema("vendor.compose-spec")).iter_errors(COMPOSE)
        assert [f"{list(error.path)}: {error.message}" for error in errors] == []

    def test_the_services_are_those_of_the_specification(self) -> None:
        images = {name: COMPOSE["services"][name]["image"] for name in STORES}
        assert images == {
            "mysql": "mysql:8.0",
            "influxdb": "influxdb:2.7",
            "redis": "redis:7-alpine",
            "nats": "nats:2.10-alpine",
        }
        mysql = COMPOSE["services"]["mysql"]["environment"]
        assert (mysql["MYSQL_DATABASE"], mysql["MYSQL_USER"]) == ("trading", "trading")
        influx = COMPOSE["services"]["influxdb"]["environment"]
        assert influx["DOCKER_INFLUXDB_INIT_ORG"] == "trading-org"
        assert influx["DOCKER_INFLUXDB_INIT_BUCKET"] == "trading"
        assert set(COMPOSE["services"]) == {*OURS, *STORES, "nginx"}

    def test_no_image_is_whatever_is_newest(self) -> None:
        for service in COMPOSE["services"].values():
            assert re.search(r":[0-9]", service["image"]), service["image"]

    def test_nginx_alone_can_be_reached_and_from_this_machine_alone(self) -> None:
        assert {name for name, service in COMPOSE["services"].items() if "ports" in service} == {"nginx"}
        assert COMPOSE["services"]["nginx"]["ports"] == ["${PUBLISH:-127.0.0.1:8080}:8080"]

    def test_our_services_run_commands_that_exist_with_settings_that_exist(self) -> None:
        for name in OURS:
            service = COMPOSE["services"][name]
            assert service["command"][0] in COMMANDS
            assert set(service["environment"]) <= VARIABLES
            assert service["volumes"] == ["data:/data"]
            assert service["read_only"]

    def test_no_secret_stands_in_it_and_each_that_is_named_is_made(self) -> None:
        made = re.search(r"for name in (.*);", (CHECKOUT / "deploy" / "make_secrets.sh").read_text())
        assert made is not None
        assert set(COMPOSE["secrets"]) == set(made[1].split())
        for name, secret in COMPOSE["secrets"].items():
            assert secret == {"file": f"./deploy/secrets/{name}"}
        used = set()
        for service in COMPOSE["services"].values():
            files = {
                value for value in service.get("environment", {}).values() if str(value).startswith("/run/")
            }
            assert files <= {f"/run/secrets/{name}" for name in service.get("secrets", [])}
            used |= set(service.get("secrets", []))
            for name, value in service.get("environment", {}).items():
                assert not re.search("PASSWORD|TOKEN|SECRET", name) or name.endswith("_FILE"), (name, value)
        assert used == set(COMPOSE["secrets"])

    def test_who_waits_for_whom(self) -> None:
        services = COMPOSE["services"]
        for name in ("server", "recorder", "api"):
            assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
            assert services[name]["healthcheck"]["test"] == ["CMD", "tradeback", "health", name]
        for service in services.values():
            for other, condition in service.get("depends_on", {}).items():
                checked = services[other].get("healthcheck", {}).get("test")
                assert checked or condition["condition"] != "service_healthy"

    def test_whom_the_api_believes_is_nginx(self) -> None:
        address = COMPOSE["services"]["nginx"]["networks"]["front"]["ipv4_address"]
        for name in OURS:
            assert COMPOSE["services"][name]["environment"]["SERVER_TRUSTED_PROXIES"] == address

    def test_fixed_addresses_are_of_the_network_and_are_given_to_nobody_else(self) -> None:
        (network,) = COMPOSE["networks"]["front"]["ipam"]["config"]
        given = [
            ipaddress.ip_address(service["networks"]["front"]["ipv4_address"])
            for service in COMPOSE["services"].values()
            if isinstance(service["networks"], dict)
        ]
        assert len(set(given)) == len(given) == 3
        for address in given:
            assert address in ipaddress.ip_network(network["subnet"])
            assert address not in ipaddress.ip_network(network["ip_range"])

    def test_the_command_of_redis_gives_it_its_password(self, tmp_path: Path) -> None:
        """Its very command, with another port, folder and place of the secret."""
        command = [word.replace("$$", "$") for word in COMPOSE["services"]["redis"]["command"]]
        (tmp_path / "password").write_text("hush")

        class Composed(RedisServer):
            def command(self, program: str) -> list[str]:
                script = command[2].replace("/run/secrets/redis_password", str(tmp_path / "password"))
                assert "dir /data\n" in script
                own = script.replace("dir /data\n", f"dir {self.folder}\nport {self.port}\nbind 127.0.0.1\n")
                return [*command[:2], own]

            def answers(self) -> bool:
                return b"PONG" in asked(self.port, b"AUTH hush\r\nPING\r\n")

        with private(Composed, tmp_path / "redis") as server:
            assert b"NOAUTH" in asked(server.port, b"PING\r\n")


def asked(port: int, commands: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(commands + b"QUIT\r\n")
        return b"".join(iter(lambda: connection.recv(4096), b""))


class TestSecretsMade:
    def test_each_once_for_its_owner_alone(self, tmp_path: Path) -> None:
        script = tmp_path / "make_secrets.sh"
        script.write_bytes((CHECKOUT / "deploy" / "make_secrets.sh").read_bytes())

        def made() -> dict[str, str]:
            subprocess.run(["sh", str(script)], check=True, stdout=subprocess.DEVNULL, cwd="/")
            return {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

        first = made()
        assert set(first) == set(COMPOSE["secrets"])
        assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in first.values())
        assert len(set(first.values())) == len(first)
        (tmp_path / "secrets" / "redis_password").unlink()
        again = made()
        assert {name for name in first if first[name] != again[name]} == {"redis_password"}
        assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700

    def test_no_commit_takes_them(self) -> None:
        done = subprocess.run(
            ["git", "check-ignore", "deploy/secrets/mysql_password"],
            cwd=CHECKOUT,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0


class TestNginx:
    def test_its_limits_are_those_of_what_stands_behind_it(self) -> None:
        folder = CHECKOUT / "deploy" / "nginx"
        whole, locations = (folder / "nginx.conf").read_text(), (folder / "locations.conf").read_text()
        (size,) = re.findall(r"client_max_body_size (\d+)k;", whole)
        assert int(size) * 1024 == MAX_BODY_BYTES
        (kept,) = re.findall(r"keepalive_timeout (\d+)s;", whole.partition("upstream")[2].partition("}")[0])
        assert int(kept) < KEEP_ALIVE_S
        websocket = locations.partition("}")[0]
        patience = [int(seconds) for seconds in re.findall(r"_timeout (\d+)s;", websocket)]
        assert len(patience) == 3
        limits = WebSocketConfig()
        assert min(patience) > max(limits.blocked_limit, limits.ping_timeout)
        answering = int(re.findall(r"proxy_read_timeout (\d+)s;", locations)[1])
        assert answering >= ServerConfig().read_timeout + ServerConfig().write_timeout


class TestDockerfile:
    def test_hadolint_has_nothing_to_say(self) -> None:
        hadolint = Path(sys.executable).with_name("hadolint")
        done = subprocess.run(
            [hadolint, "Dockerfile"], cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "")

    def test_all_stages_begin_with_the_same_pinned_debian(self) -> None:
        assert {stage.base for stage in STAGES} == {"debian:12.11-slim"}

    def test_the_last_stage_is_nobody_in_particular(self) -> None:
        last = STAGES[-1]
        assert last.last("USER") == "10001:10001"
        assert last.last("STOPSIGNAL") == "SIGTERM"
        assert last.exec_form("ENTRYPOINT") == ["tradeback"]
        assert last.exec_form("CMD")[0] in COMMANDS
        assert last.exec_form("HEALTHCHECK") == ["tradeback", "health"]

    def test_what_is_sent_to_build_is_what_git_knows_of_the_sources(self) -> None:
        sent = context(CHECKOUT)
        tracked = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "tradeback"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        )
        files = {name for name in tracked.stdout.splitlines() if (CHECKOUT / name).exists()}
        assert {name for name in sent if name.startswith("tradeback/")} == files
        assert {name for name in sent if "/" not in name} == {
            "LICENSE",
            "MANIFEST.in",
            "README.md",
            "pyproject.toml",
            "setup.py",
        }
