"""TLS to the services of other machines. A server's certificate and its name are verified: nothing here, and no
setting, turns that off.

The drivers make their connections themselves, each in its own way; this file says whom they believe, and what their
errors mean to the person who can mend the cause.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tradeback.config.files import check_ca_file
from tradeback.errors import ConfigError

# What Debian, Red Hat and SUSE gather the system's authorities in: for a driver that must be given a file.
_SYSTEM_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)
# Of OpenSSL's X509_V_ERR_*.
_NO_AUTHORITY = {2, 18, 19, 20, 21}
_NOT_YET, _ENDED = 9, 10
_OTHER_NAME = {62, 64}


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom one service is believed by, and the settings that say so. Empty `ca_file`: the system's authorities; else
    those of the file alone. It is read for each connection, so that it may be replaced."""

    ca_file: str
    ca_setting: str
    address_setting: str

    def context(self) -> ssl.SSLContext:
        """For one connection. OSError where the file cannot be read, or has no authority."""
        return ssl.create_default_context(cafile=self.ca_file or None)

    def file(self) -> str:
        """The file of authorities, that of the system where none is named; empty where there is none."""
        if self.ca_file:
            return self.ca_file
        found = (ssl.get_default_verify_paths().cafile, *_SYSTEM_FILES)
        return next((path for path in found if path and Path(path).is_file()), "")

    def remedy(self, error: BaseException) -> str | None:
        """What to do about an error of a connection; None where TLS is not what failed."""
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                return self._of_certificate(cause.verify_code)
            if isinstance(cause, ssl.SSLError):
                return self.of_ca_file() or self.without_tls
            if isinstance(cause, FileNotFoundError | PermissionError | IsADirectoryError):
                return self.of_ca_file()
        return None

    def of_ca_file(self) -> str | None:
        """What to do about the file of authorities; None where it is in order."""
        try:
            check_ca_file(self.ca_setting, self.ca_file)
        except ConfigError as error:
            return str(error)
        return None

    @property
    def unknown_authority(self) -> str:
        """What to do where another authority signed."""
        return (
            f"its certificate is of no authority {self._known}: name the file of the one that signed it with "
            f"{self.ca_setting}"
        )

    @property
    def other_name(self) -> str:
        """What to do where the certificate is for another server."""
        return (
            f"its certificate is not for the name in {self.address_setting}: give it one that is, or write a name "
            "there that it has"
        )

    @property
    def unbelieved(self) -> str:
        """What to do where all that is known is that the certificate was refused."""
        return (
            f"its certificate is of no authority {self._known}, not for the name in {self.address_setting}, or not "
            f"valid today: see which; name the file of the one that signed it with {self.ca_setting}"
        )

    @property
    def without_tls(self) -> str:
        """What to do where there is no TLS."""
        return f"it speaks no TLS there: set TLS up on it, or name the port that has it with {self.address_setting}"

    @property
    def _known(self) -> str:
        return f"that {self.ca_setting} names" if self.ca_file else "of this system"

    def _of_certificate(self, code: int) -> str:
        if code in _NO_AUTHORITY:
            return self.unknown_authority
        if code in _OTHER_NAME:
            return self.other_name
        if code == _ENDED:
            return "its certificate has run out: give it a new one"
        if code == _NOT_YET:
            return "its certificate is not valid yet: see the clocks of both machines"
        return f"its certificate cannot be believed: give it one of an authority that {self.ca_setting} names"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """It and what led to it, the drivers' own wrappings first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
